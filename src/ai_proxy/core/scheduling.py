"""What to do with a request or a start: one tree, asked on arrival and again after every event."""

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
"""Least seconds between two tries that requests cause to reach a failed service that runs by itself."""


class Origin(StrEnum):
    """Who asks."""

    REQUEST = "request"
    """A client's request; it is refused when it would wait in vain."""
    OPERATOR = "operator"
    """A person or the configuration; nothing but the state of the service holds it up."""
    POLICY = "policy"
    """The declaration `start: always`; it waits for the end of a back-off."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody asks for a service: a request for a lease, or a person for a start.

    Attributes:
        service_id: The service it is for.
        principal: Who sent the request: the id of an API key, or a client's address; for fairness among
            clients.
        priority: Higher is served first.
        deadline: When the client gives up, in monotonic seconds; None for never.
        held: Bytes of the request's body that are held in memory while it waits.
        origin: Who asks.
        reason: Why a start is asked for, in words; shown with the start.
    """

    service_id: str
    principal: str = ""
    priority: int = 0
    deadline: float | None = None
    held: int = 0
    origin: Origin = Origin.REQUEST
    reason: str = "a request came"


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What the scheduler sees of one service.

    Attributes:
        state: Its state.
        start: When it may be started.
        held: Stopped by hand, until it is started by hand.
        owned: Whether the proxy starts and ends it; else it runs by itself.
        waiting: Requests that wait for it.
        max_waiting: How many may.
        retry_at: After a failure: when a start may be tried again, in monotonic seconds.
        failure: What went wrong last; empty if nothing did.
        log_tail: Its last log lines from then.
        progress: What its start is busy with, in words; empty when nothing is known.
        load_time: Seconds from start to ready as learned from the last start; None when never started.
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
    """Everything that a decision rests on.

    Attributes:
        now: Monotonic seconds.
        service: The service that is asked for.
        held: Bytes of request bodies that are held for all services together.
        max_held: How many may be; 0 for any number.
    """

    now: float
    service: ServiceFacts
    held: int = 0
    max_held: int = 0


@dataclass(frozen=True, slots=True)
class Serve:
    """It is ready: hand out a lease."""


@dataclass(frozen=True, slots=True)
class Join:
    """It is on its way up: wait for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start it there, and wait for it."""

    reason: str
    placement: Placement = AS_DECLARED


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait, and ask again after the next event.

    Attributes:
        reason: Why, in words.
        until: When to ask again even without an event, in monotonic seconds; None for never.
    """

    reason: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """It will not be served."""

    error: ProxyError


type Decision = Serve | Join | Start | Wait | Refuse


def decide(ask: Ask, world: World, *, arriving: bool = True) -> Decision:
    """Decide about one ask.

    Args:
        ask: What is asked for.
        world: What the decision rests on.
        arriving: False for a request that already has its place among the waiting.
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
    """Return why a request would wait in vain, if it would."""
    if facts.held:
        return ServiceStoppedError(f"{name} was stopped by hand and stays so until 'ai-proxy start {name}'")
    if facts.state is State.UNKNOWN and facts.failure:
        return RuntimeUnavailableError(
            f"cannot determine whether {name} is running: {facts.failure}", retry_after=5
        )
    # A service that runs by itself may be back at any moment, so a request has it looked at again.
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
    """Return why there is no room for one more request that waits, if there is none."""
    name, facts = ask.service_id, world.service
    if facts.waiting >= facts.max_waiting:
        reason = f"{facts.waiting} requests already wait for {name}, which is {facts.state}"
    elif 0 < world.max_held < world.held + ask.held:
        reason = (
            f"{name} is {facts.state}, and the bodies of waiting requests already take {world.held >> 20} MB "
            "of server.limits.max_waiting_bodies_mb"
        )
    else:
        return None
    remaining = 5.0 if facts.load_time is None else facts.load_time - (world.now - facts.since)
    return QueueFullError(reason, retry_after=max(1.0, remaining))


def _progress(facts: ServiceFacts, now: float) -> str:
    """Say what a start is busy with, or how long it has taken and how long it took last time.

    >>> _progress(ServiceFacts(State.LOADING, since=100.0, load_time=40.0), now=112.0)
    ', 12 of about 40 s'
    >>> _progress(ServiceFacts(State.STARTING, progress="pulling image"), now=112.0)
    ': pulling image'
    """
    if facts.progress:
        return f": {facts.progress}"
    return "" if facts.load_time is None else f", {now - facts.since:.0f} of about {facts.load_time:.0f} s"


def idle_deadline(*, in_flight: int, last_used: float, idle_timeout: float, now: float) -> float | None:
    """Return when the question of stopping must be asked (again); in the past or now means: stop.

    Requests in flight, open streams and WebSockets among them, are use.

    Args:
        in_flight: Leases held.
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
