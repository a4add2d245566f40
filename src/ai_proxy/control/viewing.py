"""How services and models are shown: from the supervisors to the views that people get."""

from ai_proxy.control.supervisor import Supervisor
from ai_proxy.control.views import ModelView, ServiceView
from ai_proxy.core.lifecycle import RUNNING, State
from ai_proxy.core.routing import ModelRoute, Offer, claims


def service_view(supervisor: Supervisor, offer: Offer, waiting: int, now: float) -> ServiceView:
    """Return a service as it stands.

    Args:
        supervisor: Looks after it.
        offer: What it has to offer.
        waiting: Requests that wait for it.
        now: Monotonic seconds.
    """
    service = supervisor.service
    handle = supervisor.instance.handle
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
        upstreams=tuple(upstream.url for upstream in supervisor.instance.upstreams),
        ref=handle.ref if handle and supervisor.state in RUNNING else None,
        in_flight=supervisor.in_flight,
        waiting=waiting,
        starts=supervisor.starts,
        failures=supervisor.failures,
        failure=supervisor.failure.detail,
        exit_code=supervisor.failure.exit_code,
        log_tail=supervisor.failure.log_tail,
        retry_in=max(0.0, supervisor.retry_at - now) if failed else 0.0,
        load_time=supervisor.load_time,
        idle_stop_in=None if idle_at is None else max(0.0, idle_at - now),
        stats=supervisor.instance.usage,
    )


def model_view(route: ModelRoute, supervisor: Supervisor) -> ModelView:
    """Return a model as it stands.

    Args:
        route: Where it is.
        supervisor: Looks after the service.
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
    )
