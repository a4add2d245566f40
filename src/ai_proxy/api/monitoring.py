"""Liveness, readiness and metrics: what monitoring asks for, answered without the management application."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ai_proxy.control.views import ServiceView
from ai_proxy.core.lifecycle import State
from ai_proxy.core.service import StartPolicy
from ai_proxy.platform.tasks import Restarts

if TYPE_CHECKING:
    from starlette.responses import Response

SERVING = (State.READY, State.DRAINING)


def monitoring_endpoints(
    version: str,
    services: Callable[[], Iterable[ServiceView]],
    restarts: Callable[[], Mapping[str, Restarts]],
    metrics: Callable[[], tuple[bytes, str]],
) -> Mapping[str, Callable[[], "Response"]]:
    """Return the endpoints by path.

    Args:
        version: Of the program.
        services: Returns the state of every service.
        restarts: Returns the background work that failed and was restarted, by name.
        metrics: Returns all metrics and their content type.
    """
    return {
        "/health": lambda: health(version),
        "/ready": lambda: ready(services(), restarts()),
        "/metrics": lambda: measurements(metrics),
    }


def health(version: str) -> "Response":
    """Return the answer to `/health`."""
    return _json({"status": "ok", "version": version}, 200)


def ready(services: Iterable[ServiceView], restarts: Mapping[str, Restarts]) -> "Response":
    """Return the answer to `/ready`: 503 while a service is awaited, or background work does not run.

    Clients without a key may ask: why work failed stands in the log only.
    """
    waiting_for = not_ready(services)
    restarted = [
        {"task": name, "count": work.count, "at": work.at, "waiting": work.waiting}
        for name, work in sorted(restarts.items())
    ]
    is_ready = not waiting_for and not any(work.waiting for work in restarts.values())
    body = {"ready": is_ready, "waiting_for": waiting_for, "restarted": restarted}
    return _json(body, 200 if is_ready else 503)


def not_ready(services: Iterable[ServiceView]) -> list[str]:
    """Return the ids of services that should always run, but do not serve now."""
    return [s.id for s in services if s.start is StartPolicy.ALWAYS and not s.held and s.state not in SERVING]


def measurements(metrics: Callable[[], tuple[bytes, str]]) -> "Response":
    """Return the answer to `/metrics`."""
    from starlette.responses import Response

    text, content_type = metrics()
    return Response(text, headers={"Content-Type": content_type})


def _json(body: object, status: int) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse(body, status)
