"""Services: their state, and starting and stopping them by hand."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from loguru import logger
from pydantic import BeforeValidator

from ai_proxy.api.deps import Plane, Principal
from ai_proxy.api.errors import Problem
from ai_proxy.api.schemas import Container, Logs, Message, Services, container
from ai_proxy.api.sse import EventStream, documented, event, follow
from ai_proxy.control.views import ServiceView
from ai_proxy.core.lifecycle import State
from ai_proxy.core.logring import LogLine, LogRing

STOP_WAIT = 5.0
"""Seconds that a stop waits by default until nothing of the service runs."""

MAX_WAIT = 3600.0
"""Maximum of `wait`, in seconds."""

ServiceId = Annotated[str, Path(description="The service's id.", examples=["llama3"])]
StartWait = Annotated[
    float,
    Query(
        alias="wait", ge=0, le=MAX_WAIT, description="Seconds to wait until it is ready; 0 returns at once."
    ),
]
StopWait = Annotated[
    float, Query(alias="wait", ge=0, le=MAX_WAIT, description="Seconds to wait until nothing of it runs.")
]
Flag = Annotated[bool, BeforeValidator(lambda value: True if value == "" else value)]
"""A boolean that is also true without a value: `?follow`."""

UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No service has this id."}}
FAILED: dict[int | str, dict[str, Any]] = {
    **UNKNOWN,
    500: {"model": Problem, "description": "It failed; `detail` says why, `log_tail` has its last lines."},
    503: {"model": Problem, "description": "The runtime is unavailable, such as a stopped Docker daemon."},
}


def _underway(what: str) -> dict[int | str, dict[str, Any]]:
    return {202: {"model": Message, "description": what}}


router = APIRouter(prefix="/api/v1", tags=["services"])


@router.get("/services", summary="List the services")
async def list_services(plane: Plane) -> Services:
    """The state of every declared service."""
    return Services(services=list(plane.services()))


@router.get("/service/{service_id}", summary="Show a service", responses=UNKNOWN)
async def show_service(service_id: ServiceId, plane: Plane) -> ServiceView:
    """One service: its state and the reason, its addresses, load and last failure."""
    return plane.service(service_id)


@router.get("/container/{service_id}", summary="Show the container of a service", responses=UNKNOWN)
async def show_container(service_id: ServiceId, plane: Plane) -> Container:
    """The process or container behind a service."""
    return container(plane.service(service_id))


@router.post(
    "/service/{service_id}/start",
    summary="Start a service",
    responses={**_underway("It is starting."), **FAILED},
)
async def start_service(
    service_id: ServiceId, plane: Plane, principal: Principal, response: Response, wait: StartWait = 0
) -> Message:
    """Start a service by hand. The start continues when `wait` is over."""
    before = plane.service(service_id)
    _log("start", service_id, principal)
    after = await plane.start(service_id, wait)
    response.status_code, message = started(before, after)
    return Message(message=message)


@router.post("/service/{service_id}/stop", summary="Stop a service", responses=FAILED)
async def stop_service(
    service_id: ServiceId, plane: Plane, principal: Principal, wait: StopWait = STOP_WAIT
) -> Message:
    """Stop a service by hand and hold it stopped: requests get 503 until it is started by hand."""
    _log("stop", service_id, principal)
    view = await plane.stop(service_id, wait)
    return Message(message=f"Container {service_id!r} {'stopped' if _at_rest(view) else 'stopping'}")


@router.post(
    "/service/{service_id}/restart",
    summary="Restart a service",
    responses={**_underway("It is restarting."), **FAILED},
)
async def restart_service(
    service_id: ServiceId, plane: Plane, principal: Principal, response: Response, wait: StartWait = 0
) -> Message:
    """Stop a service after its requests have ended, and start it again."""
    before = plane.service(service_id)
    _log("restart", service_id, principal)
    after = await plane.restart(service_id, wait)
    response.status_code, message = restarted(before, after)
    return Message(message=message)


@router.post(
    "/service/{service_id}/unload",
    summary="Unload a service",
    responses={**_underway("It is being unloaded."), **FAILED},
)
async def unload_service(
    service_id: ServiceId, plane: Plane, principal: Principal, response: Response, wait: StopWait = STOP_WAIT
) -> Message:
    """Stop a service after its requests have ended; the next request may start it again."""
    _log("unload", service_id, principal)
    view = await plane.unload(service_id, wait)
    response.status_code = 200 if _at_rest(view) else 202
    return Message(message=f"Container {service_id!r} {'unloaded' if _at_rest(view) else 'unloading'}")


@router.get(
    "/service/{service_id}/logs",
    summary="Read the output of a service",
    response_model=Logs,
    responses={
        200: documented(
            "The last lines; with `follow` one server-sent event `log` per line.",
            event({"seq": 1, "at": 1700000000.0, "text": "listening"}, id=1, kind="log"),
        ),
        **UNKNOWN,
    },
)
async def read_logs(
    service_id: ServiceId,
    plane: Plane,
    *,
    tail: Annotated[int, Query(ge=0, le=100_000, description="Number of past lines.")] = 100,
    follow: Annotated[Flag, Query(description="Stream every new line until the client disconnects.")] = False,
    last_event_id: Annotated[int, Header(description="The last line received before a reconnection.")] = 0,
) -> Logs | Response:
    """The last lines of standard output and error; older ones are not kept."""
    ring = plane.logs(service_id)
    if follow:
        return _follow(ring, tail, last_event_id)
    return Logs(service_id=service_id, lines=ring.tail(tail))


def _follow(ring: LogRing, tail: int, seen: int) -> EventStream:
    def recent() -> list[LogLine]:
        return [line for line in ring.tail(tail) if line.seq > seen]

    return EventStream(follow(recent, ring.watch, lambda line: event(asdict(line), id=line.seq, kind="log")))


def started(before: ServiceView, after: ServiceView) -> tuple[int, str]:
    """Return status and message for a start, given the service before and after it."""
    if after.state is not State.READY:
        return 202, f"Container {after.id!r} starting"
    already = before.state is State.READY
    return 200, f"Container {after.id!r} {'is already running' if already else 'started'}"


def restarted(before: ServiceView, after: ServiceView) -> tuple[int, str]:
    """Return status and message for a restart, which is complete when a new instance is ready."""
    if after.state is State.READY and after.starts > before.starts:
        return 200, f"Container {after.id!r} restarted"
    return 202, f"Container {after.id!r} restarting"


def _at_rest(view: ServiceView) -> bool:
    return view.state in (State.STOPPED, State.FAILED)


def _log(action: str, service_id: str, principal: str) -> None:
    logger.info("{} of {!r} requested by {}", action, service_id, principal)
