"""Counts requests and tokens by key and model, and writes the counts in batches."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from ai_proxy.core.errors import StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.core.store_ports import Usage, UsageStore
from ai_proxy.core.usage import RequestRecord
from ai_proxy.security.text import storable

MAX_PENDING = 2000
"""Pairs of a key and a model that are counted apart between two writes: clients can invent model names."""
MAX_NAME = 200
"""Longest name of a model that is kept, in characters."""
MAX_TOKENS = 10**9
"""Most tokens that are counted for one request: a backend may report any number."""
OTHER_MODELS = "(other)"


class UsageLedger:
    """Keeps counts in memory until they are written; a crash loses those of the last seconds.

    Args:
        store: Adds them up.
        clock: Tells the time.
        changed: Called when there is something for `flush` to write.
    """

    def __init__(self, store: UsageStore, clock: Clock, changed: Callable[[], object] = lambda: None) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._pending: dict[tuple[str, str, str], list[int]] = {}

    def __repr__(self) -> str:
        return f"<UsageLedger [{len(self._pending)} pending]>"

    def note_all(self, requests: Iterable[RequestRecord]) -> None:
        """Count the finished requests that came with a key and reached a service."""
        if not (with_key := [one for one in requests if one.key_id]):
            return
        today = self._today()
        for one in with_key:
            if one.service_id:
                self._count(one.key_id, one.model, today, one.tokens_in, one.tokens_out)

    def note(self, key_id: str, model: str, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Count a request.

        Args:
            key_id: That it came with; empty for none.
            model: As the client named it.
            tokens_in: Of the prompt; less than 0 where that is not known.
            tokens_out: Of the answer; likewise.
        """
        self._count(key_id, model, self._today(), tokens_in, tokens_out)

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock.wall(), UTC).date().isoformat()

    def _count(self, key_id: str, model: str, day: str, tokens_in: int, tokens_out: int) -> None:
        name = (key_id, storable(model, MAX_NAME), day)
        if name not in self._pending and len(self._pending) >= MAX_PENDING:
            name = (key_id, OTHER_MODELS, day)
        counts = self._pending.setdefault(name, [0, 0, 0])
        self._changed()
        counts[0] += 1
        counts[1] += min(max(0, tokens_in), MAX_TOKENS)
        counts[2] += min(max(0, tokens_out), MAX_TOKENS)

    async def flush(self) -> None:
        """Write the counts since the last flush.

        Raises:
            StoreError: They could not be written, and are kept for the next flush.
        """
        pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            await self._store.add([Usage(*name, *counts) for name, counts in pending.items()])
        except StoreError:
            for name, counts in pending.items():
                newer = self._pending.setdefault(name, [0, 0, 0])
                self._pending[name] = [a + b for a, b in zip(newer, counts, strict=True)]
            raise
