"""What an exchange asks of both connections, and what all exchanges share."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from ai_proxy.core.ports import Admission, Clock, Recorder, Tracing
from ai_proxy.core.settings import Limits
from ai_proxy.gateway.guard import Guard
from ai_proxy.gateway.held import HeldBytes
from ai_proxy.gateway.http.client import RequestHandler
from ai_proxy.gateway.http.pool import Pools
from ai_proxy.gateway.routing.table import RoutingTable


@dataclass(slots=True, eq=False)
class Shared:
    """What all exchanges and connections of a gateway look up; only the gateway writes it.

    Attributes:
        admission: Says which upstream a request may use.
        recorder: Takes the facts of every finished exchange.
        limits: What one client may take.
        held: Bounds the memory for request bodies.
        reader: Reads large bodies in its thread, one after the other, while other requests go on.
        pools: Connections to backends.
        guard: Decides who may call.
        table: The routes in force.
        clock: Tells the time to dialects.
        now: Returns monotonic seconds.
        epoch: Seconds since the epoch at which `now` was 0.
        next_request_id: Returns an id that no other request of this proxy has had.
        heartbeat: Seconds of waiting after which, and between which, the client of a stream gets a comment.
        tracing: Traces requests to models; None for not at all.
        generation: Another object whenever something changes that decides what becomes of a head.
        closing: Whether the gateway is shutting down.
    """

    admission: Admission
    recorder: Recorder
    limits: Limits
    held: HeldBytes
    reader: Executor
    pools: Pools
    guard: Guard
    table: RoutingTable
    clock: Clock
    now: Callable[[], float]
    epoch: float
    next_request_id: Callable[[], bytes]
    heartbeat: float
    tracing: Tracing | None
    generation: object
    closing: bool = False


class ClientSide(Protocol):
    """The client's connection, as an exchange sees it.

    Attributes:
        transport: Takes the bytes of the response.
        write_paused: Whether the client does not keep up.
    """

    transport: asyncio.Transport
    write_paused: bool

    def pause_request(self) -> None:
        """Stop reading the request: the backend does not keep up."""

    def resume_request(self) -> None:
        """Read on."""

    def discard(self) -> None:
        """Take nothing more from the client."""

    def truncate(self, handler: RequestHandler) -> None:
        """End the connection so that the client notices that the response is not whole."""

    def open_tunnel(self, handler: RequestHandler) -> None:
        """Pass bytes both ways from now on."""

    def handler_done(self, handler: RequestHandler) -> None:
        """Go on with the next request, or end the connection."""


class UpstreamSide(Protocol):
    """The backend's connection, as an exchange sees it.

    Attributes:
        transport: Takes what comes of a request after its beginning.
    """

    transport: asyncio.Transport

    def abort(self) -> None:
        """Reset the connection, so that the engine stops working at once."""

    def pause(self) -> None:
        """Stop reading the response: the client does not keep up."""

    def resume(self) -> None:
        """Read on."""
