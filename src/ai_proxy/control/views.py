"""Immutable snapshots of services and models, for the API, the CLI and metrics."""

from dataclasses import dataclass

from ai_proxy.control.supervisor import Supervisor
from ai_proxy.core.lifecycle import RUNNING, State
from ai_proxy.core.routing import ModelRoute, Offer, claims
from ai_proxy.core.service import ResourceUsage, StartPolicy


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service, its state and its load.

    Attributes:
        id: Its name.
        type: The template it was declared with.
        engine: The software that answers.
        runtime: How it is run.
        start: When it is started.
        state: Its state.
        reason: Why it is in that state, in words.
        since: When it entered its state, in seconds since the epoch.
        held: Stopped by hand until started by hand.
        models: Names it answers to: those declared, else its id and those the engine listed when last ready.
        upstreams: Addresses, while something runs.
        ref: What the runtime calls the running thing: a pid, a container id; None when nothing runs.
        in_flight: Leases held.
        waiting: Requests that wait for it.
        wait_reason: Why a request for it waits now, in words; empty when it would not wait.
        starts: Starts since the proxy began.
        failures: Failures in a row.
        failure: What went wrong last; empty if nothing did.
        exit_code: Of the last exit that was not asked for; None when there was none or it is unknown.
        log_tail: Last log lines at the time of the last failure.
        retry_in: Seconds until a request may start it again after a failure; 0 when it may.
        load_time: Seconds from start to ready, learned from the last start.
        idle_stop_in: Seconds until it is stopped because nobody uses it; None when it will not be.
        stats: The resources it uses; None when they are not known.
    """

    id: str
    type: str
    engine: str
    runtime: str
    start: StartPolicy
    state: State
    reason: str
    since: float
    held: bool
    models: tuple[str, ...]
    upstreams: tuple[str, ...]
    ref: str | None
    in_flight: int
    waiting: int
    starts: int
    failures: int
    failure: str
    exit_code: int | None
    log_tail: tuple[str, ...]
    retry_in: float
    load_time: float | None
    idle_stop_in: float | None
    stats: ResourceUsage | None = None
    wait_reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model that can be asked for.

    Attributes:
        name: As clients say it.
        service_id: Who answers.
        engine: The software that answers.
        state: Of the service.
        target: The name by which its engine is asked for it, as far as is known.
        context_length: In tokens; None when the engine has not said.
        kind: `chat`, `embeddings`, ...; empty when the engine has not said.
        since: When the service was first known, in seconds since the epoch.
        names: By which a key may allow it, as in `core.routing.ModelRoute`.
    """

    name: str
    service_id: str
    engine: str
    state: State
    target: str
    context_length: int | None
    kind: str
    since: float
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a reload of the configuration changed, by service id.

    Attributes:
        added: Declared now, not before.
        removed: No longer declared; stopped.
        restarted: Changed in a way that a running instance must be replaced for.
        updated: Changed in settings that apply without a restart.
        unchanged: Left alone.
        needs_restart: Changed settings that take effect only when the proxy itself is restarted.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


def service_view(
    supervisor: Supervisor, offer: Offer, waiting: int, wait_reason: str, now: float
) -> ServiceView:
    """Return a snapshot of a service.

    Args:
        supervisor: Drives it.
        offer: What it has to offer.
        waiting: Requests that wait for it.
        wait_reason: Why they wait.
        now: Monotonic seconds.
    """
    service, instance = supervisor.service, supervisor.instance
    idle_at = supervisor.idle_at(now) if supervisor.state is State.READY else None
    failed = supervisor.state is State.FAILED
    return ServiceView(
        id=service.id,
        type=service.type,
        engine=service.engine,
        runtime=service.launch.runtime,
        start=service.start,
        state=supervisor.state,
        reason=supervisor.reason,
        since=supervisor.since_wall,
        held=supervisor.held,
        models=tuple(name for name, _ in claims(offer)),
        upstreams=tuple(upstream.url for upstream in instance.upstreams) if instance else (),
        ref=instance.handle.ref if instance and supervisor.state in RUNNING else None,
        in_flight=supervisor.in_flight,
        waiting=waiting,
        starts=supervisor.starts,
        failures=supervisor.failures,
        failure=supervisor.failure.detail + supervisor.failure.last_words,
        exit_code=supervisor.failure.exit_code,
        log_tail=supervisor.failure.log_tail,
        retry_in=max(0.0, supervisor.retry_at - now) if failed else 0.0,
        load_time=supervisor.load_time,
        idle_stop_in=None if idle_at is None else max(0.0, idle_at - now),
        stats=instance.usage if instance else None,
        wait_reason=wait_reason,
    )


def model_view(route: ModelRoute, supervisor: Supervisor) -> ModelView:
    """Return a snapshot of a model.

    Args:
        route: Where it is.
        supervisor: Drives its service.
    """
    service, model = supervisor.service, route.model
    return ModelView(
        name=route.name,
        service_id=service.id,
        engine=service.engine,
        state=supervisor.state,
        target=route.target,
        context_length=model.context_length if model else None,
        kind=model.kind if model else "",
        since=supervisor.added,
        names=route.names,
    )
