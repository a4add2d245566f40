"""The proxy itself: health, metrics, events, configuration."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from loguru import logger

from ai_proxy.api import monitoring
from ai_proxy.api.deps import Plane, Principal, TheContext
from ai_proxy.api.errors import Problem
from ai_proxy.api.schemas import Health, Readiness, Reloaded, ServerFacts, reloaded
from ai_proxy.api.sse import EventStream, documented, event, follow
from ai_proxy.control.events import EventBus
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State

_EXAMPLE = ServiceEvent(1, 1700000000.0, "llama3", Event.START, State.STARTING, "a request came")

router = APIRouter(tags=["system"])


@router.get("/health", summary="Is the proxy alive?", response_model=Health)
async def health(context: TheContext) -> Response:
    """Answers as long as the proxy runs, whatever the state of its services."""
    return monitoring.health(context.version)


@router.get(
    "/ready",
    summary="Is the proxy ready?",
    response_model=Readiness,
    responses={
        503: {
            "model": Readiness,
            "description": "Services that should always run are not ready, or background work does not run.",
        }
    },
)
async def ready(context: TheContext) -> Response:
    """Whether every service with `start: always` is ready, and all background work of the proxy runs.

    A service that was stopped by hand is not waited for.
    """
    return monitoring.ready(context.plane.services(), context.restarts())


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses={
        200: {
            "description": "In Prometheus' text format.",
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": 'ai_proxy_requests_total{service="llama3",status="200"} 42.0\n',
                }
            },
        }
    },
)
async def metrics(context: TheContext) -> Response:
    """Requests, durations, time to first byte, bytes, states and starts by service; the process itself."""
    return monitoring.measurements(context.metrics)


@router.get("/api/v1/server", summary="Show the proxy's addresses")
async def server(context: TheContext) -> ServerFacts:
    """The proxy's version, and its addresses for clients on the same machine."""
    addresses = context.addresses
    return ServerFacts(version=context.version, url=addresses.http, ollama_url=addresses.ollama)


@router.get(
    "/api/v1/events",
    summary="Follow the events",
    response_class=Response,
    responses={
        200: documented(
            "One server-sent event `service` per change of a state.",
            event(asdict(_EXAMPLE), id=_EXAMPLE.seq, kind="service"),
        )
    },
)
async def events(
    plane: Plane,
    recent: Annotated[int, Query(ge=0, le=1000, description="Number of past events.")] = 0,
    last_event_id: Annotated[int, Header(description="The last event received before a reconnection.")] = 0,
) -> Response:
    """Every change of a service's state, until the client disconnects. Event ids count from 1."""
    return _follow(plane.events, recent, last_event_id)


def _follow(bus: EventBus, count: int, seen: int) -> EventStream:
    def recent() -> list[ServiceEvent]:
        # A client that reconnects wants all that it missed, whatever its `recent` says.
        return [fact for fact in bus.recent(1000 if seen else count) if fact.seq > seen]

    return EventStream(
        follow(recent, bus.listen, lambda fact: event(asdict(fact), id=fact.seq, kind="service"))
    )


@router.post(
    "/api/v1/config/reload",
    summary="Reload the configuration",
    responses={
        422: {
            "model": Problem,
            "description": "The configuration has errors, one per line of `detail`; nothing was changed.",
        }
    },
)
async def reload_config(plane: Plane, principal: Principal) -> Reloaded:
    """Read the configuration again and apply it. Only services that changed are restarted."""
    logger.info("reload of the configuration requested by {}", principal)
    return reloaded(await plane.reload())
