"""What to do with a request: one tree, asked on arrival and again after every event."""

from dataclasses import dataclass

from ai_proxy.core.errors import (
    ProxyError,
    QueueFullError,
    RuntimeUnavailableError,
    ServiceFailedError,
    ServiceStoppedError,
)
from ai_proxy.core.lifecycle import State
from ai_proxy.core.service import StartPolicy


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that asks for a lease.

    Attributes:
        service_id: The service it is for.
        principal: Who sent it: the id of an API key, or a client's address; for fairness among clients.
        priority: Higher is served first.
        deadline: When its client gives up, in monotonic seconds; None for never.
        held: Bytes of its body that are held in memory while it waits.
    """

    service_id: str
    principal: str = ""
    priority: int = 0
    deadline: float | None = None
    held: int = 0


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What the scheduler sees of one service.

    Attributes:
        state: Where it stands.
        start: When it may be started.
        held: Stopped by hand, until it is started by hand.
        resumable: In DRAINING: whether a request may call it back.
        waiting: Requests that wait for it.
        max_waiting: How many may.
        retry_at: After a failure: when a start may be tried again, in monotonic seconds.
        failure: What went wrong last; empty if nothing did.
        log_tail: Its last log lines from then.
        load_time: Seconds from start to ready as learned from the last start; None when never started.
        since: When it entered its state, in monotonic seconds.
    """

    state: State
    start: StartPolicy = StartPolicy.ON_DEMAND
    held: bool = False
    resumable: bool = False
    waiting: int = 0
    max_waiting: int = 1000
    retry_at: float = 0.0
    failure: str = ""
    log_tail: tuple[str, ...] = ()
    load_time: float | None = None
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Serve:
    """It is ready: hand out a lease."""


@dataclass(frozen=True, slots=True)
class Resume:
    """It is about to stop for want of use: call it back."""


@dataclass(frozen=True, slots=True)
class Join:
    """It is on its way up: wait for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start it, and wait for it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It must first come to rest: wait, and ask again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """It will not be served."""

    error: ProxyError


type Decision = Serve | Resume | Join | Start | Wait | Refuse


def decide(name: str, facts: ServiceFacts, now: float, *, arriving: bool = True) -> Decision:
    """Decide about one request for the service `name`.

    Args:
        name: The service, for the reasons.
        facts: What is known of it.
        now: Monotonic seconds.
        arriving: False for a request that already has its place among the waiting.
    """
    if facts.state is State.READY:
        return Serve()
    if facts.state is State.DRAINING and facts.resumable:
        return Resume()
    if refusal := _refusal(name, facts, now):
        return Refuse(refusal)
    if arriving and facts.waiting >= facts.max_waiting:
        return Refuse(_queue_full(name, facts, now))
    if facts.state in (State.STOPPED, State.FAILED):
        return Start()
    if facts.state in (State.STARTING, State.LOADING):
        return Join(f"{name} is {facts.state}{_progress(facts, now)}")
    return Wait(f"{name} is {facts.state}")


def _refusal(name: str, facts: ServiceFacts, now: float) -> ProxyError | None:
    """Return why the service may not be started for a request, if it may not."""
    if facts.held:
        return ServiceStoppedError(f"{name} was stopped by hand and stays so until 'ai-proxy start {name}'")
    if facts.state is State.UNKNOWN and facts.failure:
        return RuntimeUnavailableError(
            f"it cannot be told whether {name} runs: {facts.failure}", retry_after=5
        )
    backing_off = facts.state is State.FAILED and now < facts.retry_at
    if facts.state is State.FAILING or backing_off:
        return ServiceFailedError(
            f"{name} failed: {facts.failure}",
            retry_after=max(1.0, facts.retry_at - now),
            log_tail=facts.log_tail,
        )
    if facts.state in (State.STOPPED, State.FAILED, State.STOPPING) and facts.start is StartPolicy.MANUAL:
        return ServiceStoppedError(f"{name} is started by hand only: run 'ai-proxy start {name}'")
    return None


def _queue_full(name: str, facts: ServiceFacts, now: float) -> QueueFullError:
    remaining = 5.0 if facts.load_time is None else facts.load_time - (now - facts.since)
    return QueueFullError(
        f"{facts.waiting} requests already wait for {name}, which is {facts.state}",
        retry_after=max(1.0, remaining),
    )


def _progress(facts: ServiceFacts, now: float) -> str:
    """Say how long a load has taken and how long it took last time.

    >>> _progress(ServiceFacts(State.LOADING, since=100.0, load_time=40.0), now=112.0)
    ', 12 of about 40 s'
    """
    return "" if facts.load_time is None else f", {now - facts.since:.0f} of about {facts.load_time:.0f} s"
