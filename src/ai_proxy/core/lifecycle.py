"""The life of a service: every state, every event and every transition, in one table."""

from enum import StrEnum


class State(StrEnum):
    """The state of a service. STOPPED and FAILED are entered only with proof that nothing runs."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILING = "failing"
    FAILED = "failed"


class Event(StrEnum):
    """An event that moves a service from one state to the next."""

    ADOPTED = "adopted"
    ABSENT = "absent"
    START = "start"
    LAUNCHED = "launched"
    PROBE_OK = "probe_ok"
    DRAIN = "drain"
    DRAINED = "drained"
    STOP = "stop"
    FAULT = "fault"
    EXITED = "exited"


S, E = State, Event

TRANSITIONS: dict[tuple[State, Event], State] = {
    (S.UNKNOWN, E.ADOPTED): S.LOADING,
    (S.UNKNOWN, E.ABSENT): S.STOPPED,
    (S.UNKNOWN, E.STOP): S.STOPPING,
    (S.STOPPED, E.START): S.STARTING,
    (S.STARTING, E.LAUNCHED): S.LOADING,
    (S.STARTING, E.STOP): S.STOPPING,
    (S.STARTING, E.FAULT): S.FAILING,
    (S.LOADING, E.PROBE_OK): S.READY,
    (S.LOADING, E.STOP): S.STOPPING,
    (S.LOADING, E.FAULT): S.FAILING,
    (S.LOADING, E.EXITED): S.FAILED,
    (S.READY, E.DRAIN): S.DRAINING,
    (S.READY, E.STOP): S.STOPPING,
    (S.READY, E.FAULT): S.FAILING,
    (S.READY, E.EXITED): S.FAILED,
    (S.DRAINING, E.DRAINED): S.STOPPING,
    (S.DRAINING, E.STOP): S.STOPPING,
    (S.DRAINING, E.FAULT): S.FAILING,
    (S.DRAINING, E.EXITED): S.FAILED,
    (S.STOPPING, E.EXITED): S.STOPPED,
    (S.FAILING, E.EXITED): S.FAILED,
    (S.FAILED, E.START): S.STARTING,
    (S.FAILED, E.STOP): S.STOPPED,
}

RUNNING = frozenset({S.STARTING, S.LOADING, S.READY, S.DRAINING, S.STOPPING, S.FAILING})
"""States in which something may run, and so memory counts as taken."""


class InvalidTransitionError(Exception):
    """The table has no transition for an event in a state, which is a bug."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"event {event!r} is not possible in state {state!r}")
        self.state = state
        self.event = event


def transition(state: State, event: Event) -> State:
    """Return the state that follows.

    Raises:
        InvalidTransitionError: The table has no such transition.

    >>> transition(State.LOADING, Event.PROBE_OK)
    <State.READY: 'ready'>
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InvalidTransitionError(state, event) from None


def backoff(failures: int) -> float:
    """Return the seconds to wait after the given number of failures in a row: 1 doubling up to 60.

    >>> [backoff(n) for n in (0, 1, 2, 6, 7, 1000)]
    [0.0, 1.0, 2.0, 32.0, 60.0, 60.0]
    """
    return 0.0 if failures <= 0 else min(60.0, float(2 ** min(failures - 1, 6)))


STABLE_AFTER = 60.0
"""Seconds in READY after which earlier failures are forgotten."""


def count_failure(failures: int, ready_for: float) -> int:
    """Return the number of failures in a row, given how long (seconds) the service had been ready.

    >>> count_failure(3, ready_for=2.0), count_failure(3, ready_for=3600.0)
    (4, 1)
    """
    return 1 if ready_for >= STABLE_AFTER else failures + 1


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), target in TRANSITIONS.items():
        arrows.setdefault((state, target), []).append(event)
    lines = [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
    return "\n".join(["stateDiagram-v2", "    [*] --> unknown", *lines])
