"""The event bus: who wants to know hears of every change of state."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State

MAX_BACKLOG = 1000
"""Events kept for those who ask later, and for each slow listener; older ones are dropped."""


class EventBus:
    """Publishes service events to callbacks and to streams, and remembers the last ones."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._seq = 0
        self._recent: deque[ServiceEvent] = deque(maxlen=MAX_BACKLOG)
        self._listeners: list[Callable[[ServiceEvent], None]] = []

    def publish(self, service_id: str, event: Event, state: State, reason: str) -> None:
        """Tell every listener, in the order in which they came."""
        self._seq += 1
        fact = ServiceEvent(self._seq, self._wall(), service_id, event, state, reason)
        self._recent.append(fact)
        for listener in tuple(self._listeners):
            listener(fact)

    def listen(self, listener: Callable[[ServiceEvent], None]) -> Callable[[], None]:
        """Call `listener` for every event until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def recent(self, count: int = 100) -> list[ServiceEvent]:
        """Return the last events, oldest first."""
        return list(self._recent)[-count:] if count > 0 else []

    async def stream(self) -> AsyncIterator[ServiceEvent]:
        """Yield every event from now on; a listener too slow to follow loses the oldest."""
        backlog: deque[ServiceEvent] = deque(maxlen=MAX_BACKLOG)
        arrived = asyncio.Event()

        def take(fact: ServiceEvent) -> None:
            backlog.append(fact)
            arrived.set()

        stop = self.listen(take)
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                while backlog:
                    yield backlog.popleft()
        finally:
            stop()
