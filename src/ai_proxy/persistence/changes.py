"""Changes of what instances keep in memory, whatever program makes them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from ai_proxy.core.ports import Clock
from ai_proxy.persistence.database import Database


class Changes:
    """Implements `core.store_ports.ChangeFeed`; triggers in the database count (see `migrations`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def watch(self, clock: Clock) -> AsyncGenerator[Mapping[str, int]]:
        """Yield the counts of changes, by name: at once, and whenever they may have risen."""
        async with aclosing(self._database.changes(clock)) as changes:
            async for _ in changes:
                yield await self.counts()

    async def counts(self) -> Mapping[str, int]:
        """Return the counts of changes, by name; what never changed is left out."""
        rows = await self._database.read(lambda tx: tx.rows("SELECT name, count FROM changes"))
        return {row["name"]: row["count"] for row in rows}
