"""Counts requests and tokens by key and model, and writes the counts in batches."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from ai_proxy.core.errors import StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.core.store_ports import Usage, UsageStore
from ai_proxy.core.usage import RequestRecord
from ai_proxy.security.audit import storable

MAX_PENDING = 2000
"""Pairs of a key and a model that are counted apart between two writes: clients can invent model names."""
MAX_NAME = 200
"""Longest name of a model that is kept, in characters."""
MAX_TOKENS = 10**9
"""Most tokens that are counted for one request: a backend may report any number."""
MAX_A_DAY = 10_000
"""Such pairs in a day, likewise; those beyond are counted as other models."""
MAX_A_KEY = 200
"""Models of one key in a day, likewise: a key that invents names takes no room from the others."""
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
        self._today = ""
        self._seen: set[tuple[str, str, str]] = set()
        self._models = Counter[str]()

    def __repr__(self) -> str:
        return f"<UsageLedger [{len(self._pending)} pending]>"

    def note_all(self, requests: Iterable[RequestRecord]) -> None:
        """Count the finished requests that came with a key and reached a service."""
        counted = [one for one in requests if one.key_id and one.service_id]
        if not counted:
            return
        day = datetime.fromtimestamp(self._clock.wall(), UTC).date().isoformat()
        for one in counted:
            name = (one.key_id, storable(one.model, MAX_NAME), day)
            if not self._has_room(name, day):
                name = (one.key_id, OTHER_MODELS, day)
            counts = self._pending.setdefault(name, [0, 0, 0])
            counts[0] += 1
            for place, tokens in enumerate((one.tokens_in, one.tokens_out), 1):
                counts[place] += min(max(0, tokens), MAX_TOKENS)
        self._changed()

    def _has_room(self, name: tuple[str, str, str], day: str) -> bool:
        """Tell whether a pair may be counted apart."""
        if day != self._today:
            self._today, self._seen = day, set()
            self._models.clear()
        if name in self._seen:
            return name in self._pending or len(self._pending) < MAX_PENDING
        key_id = name[0]
        if (
            len(self._pending) >= MAX_PENDING
            or len(self._seen) >= MAX_A_DAY
            or self._models[key_id] >= MAX_A_KEY
        ):
            return False
        self._seen.add(name)
        self._models[key_id] += 1
        return True

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
