"""Decides what to do with a request or a start, on its arrival and again after every event."""

from dataclasses import dataclass
from enum import StrEnum

from ai_proxy.core.errors import (
    ProxyError,
    QueueFullError,
    RuntimeUnavailableError,
    ServiceFailedError,
    ServiceStoppedError,
)
from ai_proxy.core.lifecycle import State
from ai_proxy.core.placement import AS_DECLARED, Placement
from ai_proxy.core.service import StartPolicy

SOONEST_RETRY = 1.0
"""Minimum seconds between two attempts of requests to reach a failed external service."""


class Origin(StrEnum):
    """Who asks for a service."""

    REQUEST = "request"
    """A client's request; refused when waiting is pointless."""
    OPERATOR = "operator"
    """A person or the configuration; only the state of the service can delay it."""
    POLICY = "policy"
    """The declaration `start: always`; waits for the end of a back-off."""


@dataclass(frozen=True, slots=True)
class Ask:
    """An ask for a service: for a lease by a request, or for a start by a person.

    Attributes:
        service_id: The service.
        principal: Id of the request's API key, or the client's address; for fairness among clients.
        priority: Higher priorities are served first.
        deadline: When the client gives up, in monotonic seconds; None for never.
        origin: Who asks.
        reason: Reason for a start, as text; shown with the start.
    """

    service_id: str
    principal: str = ""
    priority: int = 0
    deadline: float | None = None
    origin: Origin = Origin.REQUEST
    reason: str = "a request came"


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """The scheduler's view of one service.

    Attributes:
        state: Its state.
        start: When it may be started.
        held: Whether it was stopped by hand, and so needs a start by hand.
        owned: Whether the proxy starts and stops it.
        waiting: Number of waiting requests.
        max_waiting: Maximum number of waiting requests.
        retry_at: After a failure: earliest time of the next start, in monotonic seconds.
        failure: The last failure, as text; empty without one.
        log_tail: Its last log lines at that failure.
        progress: Progress of its start, as text; empty when unknown.
        load_time: Seconds that its last start took; None when it never started.
        since: When it entered its state, in monotonic seconds.
    """

    state: State
    start: StartPolicy = StartPolicy.ON_DEMAND
    held: bool = False
    owned: bool = True
    waiting: int = 0
    max_waiting: int = 1000
    retry_at: float = 0.0
    failure: str = ""
    log_tail: tuple[str, ...] = ()
    progress: str = ""
    load_time: float | None = None
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class World:
    """All facts for a decision.

    Attributes:
        now: Monotonic seconds.
        service: The service.
    """

    now: float
    service: ServiceFacts


@dataclass(frozen=True, slots=True)
class Serve:
    """Give a lease: the service is ready."""


@dataclass(frozen=True, slots=True)
class Join:
    """Wait for the start that is in progress."""

    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start the service there, and wait for it."""

    reason: str
    placement: Placement = AS_DECLARED


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait, and decide again after the next event.

    Attributes:
        reason: Why, as text.
        until: When to decide again without an event, in monotonic seconds; None for never.
    """

    reason: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse the request."""

    error: ProxyError


type Decision = Serve | Join | Start | Wait | Refuse


def decide(ask: Ask, world: World, *, arriving: bool = True) -> Decision:
    """Decide about one ask.

    Args:
        ask: The ask.
        world: The facts.
        arriving: Whether the request has just arrived; False for one that already waits.
    """
    name, facts, now = ask.service_id, world.service, world.now
    if facts.state is State.READY:
        return Serve()
    if ask.origin is Origin.REQUEST:
        refusal = _refusal(name, facts, now) or (_no_room(ask, world) if arriving else None)
        if refusal is not None:
            return Refuse(refusal)
    match facts.state:
        case State.FAILED if ask.origin is Origin.POLICY and now < facts.retry_at:
            pause = facts.retry_at - now
            return Wait(f"{name} failed, {facts.failure}; the next try is in {pause:.0f} s", facts.retry_at)
        case State.STOPPED | State.FAILED:
            return Start(ask.reason)
        case State.STARTING | State.LOADING:
            return Join(f"{name} is {facts.state}{_progress(facts, now)}")
        case _:
            return Wait(f"{name} is {facts.state}")


def _refusal(name: str, facts: ServiceFacts, now: float) -> ProxyError | None:
    """Return why waiting would be pointless; None when it is not."""
    if facts.held:
        return ServiceStoppedError(f"{name} was stopped by hand and stays so until 'ai-proxy start {name}'")
    if facts.state is State.UNKNOWN and facts.failure:
        return RuntimeUnavailableError(
            f"cannot determine whether {name} is running: {facts.failure}", retry_after=5
        )
    # An external service may return at any time, so a request triggers another probe.
    retry_at = facts.retry_at if facts.owned else min(facts.retry_at, facts.since + SOONEST_RETRY)
    backing_off = facts.state is State.FAILED and now < retry_at
    if facts.state is State.FAILING or backing_off:
        return ServiceFailedError(
            f"{name} failed: {facts.failure}",
            retry_after=max(1.0, retry_at - now),
            log_tail=facts.log_tail,
        )
    if facts.state in (State.STOPPED, State.FAILED, State.STOPPING) and facts.start is StartPolicy.MANUAL:
        return ServiceStoppedError(f"{name} is started by hand only: run 'ai-proxy start {name}'")
    return None


def _no_room(ask: Ask, world: World) -> QueueFullError | None:
    """Return why one more request cannot wait; None when it can."""
    name, facts = ask.service_id, world.service
    if facts.waiting < facts.max_waiting:
        return None
    reason = f"{facts.waiting} requests already wait for {name}, which is {facts.state}"
    remaining = 5.0 if facts.load_time is None else facts.load_time - (world.now - facts.since)
    return QueueFullError(reason, retry_after=max(1.0, remaining))


def _progress(facts: ServiceFacts, now: float) -> str:
    """Return the progress of a start: what it does, or its time so far and that of the last start.

    >>> _progress(ServiceFacts(State.LOADING, since=100.0, load_time=40.0), now=112.0)
    ', 12 of about 40 s'
    >>> _progress(ServiceFacts(State.STARTING, progress="pulling image"), now=112.0)
    ': pulling image'
    """
    if facts.progress:
        return f": {facts.progress}"
    return "" if facts.load_time is None else f", {now - facts.since:.0f} of about {facts.load_time:.0f} s"


def idle_deadline(*, in_flight: int, last_used: float, idle_timeout: float, now: float) -> float | None:
    """Return when to check (again) whether to stop an idle service; a time up to now means: stop.

    A service with requests in flight, including open streams and WebSockets, is not idle.

    Args:
        in_flight: Number of leases.
        last_used: When the last lease was given or given back, in monotonic seconds.
        idle_timeout: In seconds; 0 for never.
        now: Monotonic seconds.

    Returns:
        Monotonic seconds, or None for never.

    >>> idle_deadline(in_flight=0, last_used=100.0, idle_timeout=10.0, now=105.0)
    110.0
    >>> idle_deadline(in_flight=1, last_used=100.0, idle_timeout=10.0, now=500.0)
    510.0
    >>> idle_deadline(in_flight=0, last_used=100.0, idle_timeout=0.0, now=105.0) is None
    True
    """
    if idle_timeout <= 0:
        return None
    return (now if in_flight else last_used) + idle_timeout
