"""The event bus: every change of a service's state for its listeners, and the last ones for who asks."""

from collections import deque
from collections.abc import Callable

from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State
from ai_proxy.platform.listeners import Listeners

MAX_BACKLOG = 1000
"""Events kept for those who ask later; older ones are dropped."""


class EventBus:
    """Publishes service events, and remembers the last ones."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._seq = 0
        self._recent: deque[ServiceEvent] = deque(maxlen=MAX_BACKLOG)
        self._listeners = Listeners[ServiceEvent]("service events")

    def publish(self, service_id: str, event: Event, state: State, reason: str) -> None:
        """Inform every listener; one that raises harms nobody else."""
        self._seq += 1
        fact = ServiceEvent(self._seq, self._wall(), service_id, event, state, reason)
        self._recent.append(fact)
        self._listeners.publish(fact)

    def listen(self, listener: Callable[[ServiceEvent], None]) -> Callable[[], None]:
        """Call `listener` for every event until the returned function is called."""
        return self._listeners.add(listener)

    def recent(self, count: int = 100) -> list[ServiceEvent]:
        """Return the last events, oldest first."""
        return list(self._recent)[-count:] if count > 0 else []
