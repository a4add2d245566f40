"""Starts and stops of services, assembled from their events."""

from dataclasses import dataclass, replace

from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State


@dataclass(frozen=True, slots=True)
class Phase:
    """A state that a service passed through.

    Attributes:
        state: The state.
        began: When it was entered, in seconds since the epoch.
        reason: Why it was entered.
    """

    state: State
    began: float
    reason: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One start or stop of a service.

    Attributes:
        kind: `start`, `adopt`, `stop`; `exit` for an unexpected end.
        service_id: The service.
        phases: The states that it passed through, oldest first.
        ended: When it ended, in seconds since the epoch; 0 while it goes on.
        outcome: The state it ended in.
        reason: Why it ended so.
        failed: Whether it missed its goal.
    """

    kind: str
    service_id: str
    phases: tuple[Phase, ...]
    ended: float = 0.0
    outcome: State = State.UNKNOWN
    reason: str = ""
    failed: bool = False

    @property
    def began(self) -> float:
        """When it began, in seconds since the epoch."""
        return self.phases[0].began


_OPENS = {
    Event.START: "start",
    Event.ADOPTED: "adopt",
    Event.DRAIN: "stop",
    Event.STOP: "stop",
    Event.FAULT: "exit",
    Event.EXITED: "exit",
}
"""The kind of operation that an event begins."""


class Operations:
    """Assembles the operations of all services, of which each has at most one at a time."""

    def __init__(self) -> None:
        self._open: dict[str, Operation] = {}

    def __repr__(self) -> str:
        return f"<Operations [{len(self._open)} unfinished]>"

    def add(self, event: ServiceEvent) -> list[Operation]:
        """Add an event; return the operations that end with it."""
        current = self._open.pop(event.service_id, None)
        over: list[Operation] = []
        if event.event is Event.STOP and current is not None and current.kind in ("start", "adopt"):
            over.append(_end(current, event, failed=True))
            current = None
        phase = Phase(event.state, event.at, event.reason)
        if current is not None:
            current = replace(current, phases=(*current.phases, phase))
        elif event.event in _OPENS and (event.event, event.state) != (Event.STOP, State.STOPPED):
            current = Operation(_OPENS[event.event], event.service_id, (phase,))
        if current is None:
            return over
        if event.state in (State.READY, State.STOPPED, State.FAILED):
            return [*over, _end(current, event, failed=event.state is State.FAILED)]
        self._open[event.service_id] = current
        return over


def _end(operation: Operation, event: ServiceEvent, *, failed: bool) -> Operation:
    phases = tuple(phase for phase in operation.phases if phase.began < event.at) or operation.phases[:1]
    return replace(
        operation, phases=phases, ended=event.at, outcome=event.state, reason=event.reason, failed=failed
    )
