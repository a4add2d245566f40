"""The audit log: management actions and refused requests, by whom and from where."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace

from ai_proxy.core.errors import StoreError
from ai_proxy.core.keys import redacted
from ai_proxy.core.limits import Bucket, Rate
from ai_proxy.core.ports import Clock
from ai_proxy.core.store_ports import AuditEntry, AuditStore

PAGE = 500
"""Entries read at once."""
POLL = 0.5
"""Seconds between two looks for entries that other processes wrote."""
REFUSALS = Rate(per_minute=120, burst=600)
"""Refusals that get an entry each. Those beyond share one, or a refused client could fill the disk."""
MAX_PENDING = 5_000
"""Entries of refusals until they are written: with a store that fails, they would fill the memory."""
MAX_TEXT = 300
"""Longest text of an entry, in characters."""
EVERYBODY, EVERYTHING = "(several)", "(more refused requests)"


class AuditLog:
    """Records actions at once, and refusals in batches, equal ones counted in one entry.

    Args:
        store: Where to.
        clock: Tells the time.
        changed: Called when there is something for `flush` to write.
    """

    def __init__(self, store: AuditStore, clock: Clock, changed: Callable[[], object] = lambda: None) -> None:
        self._store = store
        self._clock = clock
        self._refused: dict[tuple[str, str, str, str], AuditEntry] = {}
        self._room = Bucket(REFUSALS)
        self._changed = changed

    def __repr__(self) -> str:
        return f"<AuditLog [{len(self._refused)} refusals pending]>"

    async def record(
        self, who: str, what: str, where_from: str, result: str = "ok", detail: str = ""
    ) -> None:
        """Record an action; on return it is on disk.

        Args:
            who: A key's id, `owner` or `anonymous`.
            what: The action, and to what: `service.stop llama3`.
            where_from: The client's address; `local` for the owner's socket.
            result: `ok`, or the code of the error.
            detail: Details; empty for none.

        Raises:
            StoreError: It could not be written.
        """
        await self._store.append([self._entry(who, what, where_from, result, detail)])

    def refuse(self, who: str, what: str, where_from: str, result: str, detail: str = "") -> None:
        """Note a refused request, which the next `flush` writes; immediate.

        Args:
            who: A key's id, or `anonymous`.
            what: Method and path, without the query.
            where_from: The client's address.
            result: Code of the error.
            detail: Details; of equal refusals, those of the first are kept.
        """
        name = (who, what[:MAX_TEXT], where_from, result)
        if name not in self._refused and not self._has_room():
            name, detail = (EVERYBODY, EVERYTHING, EVERYBODY, result), ""
        known = self._refused.get(name)
        self._refused[name] = (
            replace(known, count=known.count + 1)
            if known
            else replace(self._entry(*name, detail), refused=True)
        )
        self._changed()

    def _has_room(self) -> bool:
        """Tell whether another refusal may have an entry of its own."""
        return not self._room.take(self._clock.now()) and len(self._refused) < MAX_PENDING

    async def flush(self) -> None:
        """Write the refusals noted since the last flush.

        Raises:
            StoreError: They could not be written, and are kept for the next flush.
        """
        refused, self._refused = self._refused, {}
        try:
            await self._store.append(list(refused.values()))
        except StoreError:
            for name, newer in self._refused.items():
                older = refused.get(name)
                refused[name] = replace(older, count=older.count + newer.count) if older else newer
            self._refused = refused
            raise

    async def export(
        self, since: float | None = None, until: float | None = None
    ) -> AsyncIterator[AuditEntry]:
        """Yield the entries, oldest first.

        Args:
            since: Leaves out what is older, in seconds since the epoch; None for nothing.
            until: Leaves out what is as old or younger; None for nothing.
        """
        seq = 0
        while page := await self._store.page(seq, PAGE, since, until):
            for entry in page:
                yield entry
            seq = page[-1].seq

    async def follow(self, after: int | None = None) -> AsyncGenerator[AuditEntry]:
        """Yield every entry from now on, also those that other processes write.

        Args:
            after: Begins behind this place in the log; None for its end.
        """
        seq = await self._store.last_seq() if after is None else after
        while True:
            page = await self._store.page(seq, PAGE)
            for entry in page:
                yield entry
                seq = entry.seq
            if len(page) < PAGE:
                await self._clock.sleep(POLL)

    def _entry(self, who: str, what: str, where_from: str, result: str, detail: str) -> AuditEntry:
        def kept(text: str) -> str:
            return storable(redacted(text), MAX_TEXT)

        return AuditEntry(
            self._clock.wall(), kept(who), kept(what), kept(where_from), kept(result), kept(detail)
        )


def storable(text: str, most: int) -> str:
    r"""Return a text that every database takes: without NUL, without halves of characters, and not too long.

    >>> storable("a\x00b\ud800c", 4)
    'a\ufffdb?'
    """
    return text[:most].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
