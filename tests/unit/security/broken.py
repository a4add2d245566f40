"""A store that fails as long as it is told to."""

from collections.abc import Mapping, Sequence

from ai_proxy.core.errors import StoreFullError
from ai_proxy.core.keys import ApiKey
from ai_proxy.core.store_ports import AuditEntry, AuditStore, KeyStore, Usage, UsageStore


class Fault:
    """Whether writing fails."""

    def __init__(self) -> None:
        self.on = False

    def strike(self) -> None:
        """Fail, if it is to."""
        if self.on:
            raise StoreFullError("no room is left; free some")


class FaultyKeys:
    """Implements `core.store_ports.KeyStore`."""

    def __init__(self, store: KeyStore, fault: Fault) -> None:
        self._store = store
        self._fault = fault

    async def all(self) -> Sequence[ApiKey]:
        return await self._store.all()

    async def count(self) -> int:
        return await self._store.count()

    async def add(self, key: ApiKey) -> None:
        self._fault.strike()
        await self._store.add(key)

    async def revoke(self, key_id: str, at: float) -> None:
        self._fault.strike()
        await self._store.revoke(key_id, at)

    async def rotate(self, old: ApiKey, fresh: ApiKey) -> None:
        self._fault.strike()
        await self._store.rotate(old, fresh)

    async def touch(self, last_used: Mapping[str, float]) -> None:
        self._fault.strike()
        await self._store.touch(last_used)


class FaultyUsage:
    """Implements `core.store_ports.UsageStore`."""

    def __init__(self, store: UsageStore, fault: Fault) -> None:
        self._store = store
        self._fault = fault

    async def add(self, usage: Sequence[Usage]) -> None:
        self._fault.strike()
        await self._store.add(usage)

    async def totals(self, since_day: str = "", key_id: str | None = None) -> Sequence[Usage]:
        return await self._store.totals(since_day, key_id)

    async def trim(self, since_day: str, most: int) -> None:
        await self._store.trim(since_day, most)


class FaultyAudit:
    """Implements `core.store_ports.AuditStore`."""

    def __init__(self, store: AuditStore, fault: Fault) -> None:
        self._store = store
        self._fault = fault

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        self._fault.strike()
        await self._store.append(entries)

    async def page(
        self, after: int = 0, limit: int = 1000, since: float | None = None, until: float | None = None
    ) -> Sequence[AuditEntry]:
        return await self._store.page(after, limit, since, until)

    async def newest(
        self, limit: int = 1000, since: float | None = None, until: float | None = None
    ) -> Sequence[AuditEntry]:
        return await self._store.newest(limit, since, until)

    async def last_seq(self) -> int:
        return await self._store.last_seq()

    async def trim(self, before: float, most: int, limit: int, *, refused: bool) -> int:
        self._fault.strike()
        return await self._store.trim(before, most, limit, refused=refused)
