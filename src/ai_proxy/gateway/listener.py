"""The data plane: owns the public listeners, their connections, and what all exchanges share."""

import asyncio
import errno
import itertools
import os
import secrets
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from loguru import logger

from ai_proxy.core.errors import InvalidKeyError, ProxyError
from ai_proxy.core.ports import Admission, Recorder
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import Upstream
from ai_proxy.core.settings import Limits
from ai_proxy.core.usage import LiveRequest
from ai_proxy.gateway.exchange import Exchange, Plan, make_plan, refused
from ai_proxy.gateway.guard import Guard, OpenGuard
from ai_proxy.gateway.held import HeldBytes
from ai_proxy.gateway.http.client import ClientConnection, Connection
from ai_proxy.gateway.http.pool import MAX_IDLE, Pools
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.tls import TlsListener
from ai_proxy.gateway.http.wire import Header
from ai_proxy.gateway.inference.prompt import plain_reader
from ai_proxy.gateway.ports import Shared
from ai_proxy.gateway.routing.endpoints import OPENAI, Frontend
from ai_proxy.gateway.routing.redirect import redirect_to
from ai_proxy.gateway.routing.table import Destination, RoutingTable
from ai_proxy.platform.clock import SystemClock
from ai_proxy.platform.tasks import Background, cancel

BACKLOG = 2048
HEALTH_RESERVE = 64
"""Connections above `max_connections` that are accepted, for health checks only."""
ABORT_TIMEOUT = 5.0
"""Seconds for connections that were cut off to be gone."""


class Gateway:
    """Accepts clients and has their requests answered.

    Attributes:
        shared: What all exchanges look up.

    Args:
        admission: Says which upstream a request may use.
        recorder: Takes the facts of every finished exchange.
        limits: What one client may take.
        management: Where the management app listens.
        background: Owns the sweep.
        sweep_interval: Seconds between two sweeps for overdue connections; the grain of every time limit.
        heartbeat: Seconds of waiting after which, and between which, the client of a stream gets a comment.
    """

    def __init__(
        self,
        admission: Admission,
        recorder: Recorder,
        limits: Limits,
        management: Upstream,
        background: Background,
        sweep_interval: float = 1.0,
        heartbeat: float = 2.0,
    ) -> None:
        pools = Pools()
        self._management = Destination("", upstream=management)
        self._management.pool = pools.of(management)
        self._management.pool.is_own = True
        self.shared = Shared(
            admission=admission,
            recorder=recorder,
            limits=limits,
            held=HeldBytes(limits),
            reader=ThreadPoolExecutor(1, "reader"),
            pools=pools,
            guard=OpenGuard(),
            table=self._routes(()),
            clock=SystemClock(),
            now=time.monotonic,
            epoch=time.time() - time.monotonic(),
            next_request_id=map(
                (secrets.token_hex(4).encode() + b"-%x").__mod__, itertools.count(1)
            ).__next__,
            heartbeat=heartbeat,
            tracing=None,
            generation=object(),
        )
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._servers: list[asyncio.Server | TlsListener] = []
        self._lacks_files = False
        self._sweep_interval = sweep_interval
        self._sweeper = background.run(self._sweep, "gateway sweep")

    def __repr__(self) -> str:
        services = len(self.shared.table.services)
        return f"<Gateway [{len(self._connections)} connections, {services} services]>"

    @property
    def connections(self) -> list[ClientConnection]:
        """The connections of clients, without those still in their TLS handshake."""
        return [connection for connection in self._connections if isinstance(connection, ClientConnection)]

    def live(self) -> list[LiveRequest]:
        """Return the requests to models that are being answered."""
        now = self.shared.now()
        current = [connection.current for connection in self.connections]
        found = [exchange.live(now) for exchange in current if isinstance(exchange, Exchange)]
        return [request for request in found if request is not None]

    def publish(self, offers: Iterable[Offer]) -> None:
        """Swap the routing table; requests already routed go on as they were."""
        before, table = self.shared.table.models, self._routes(tuple(offers))
        self.shared.table = table
        self.shared.generation = object()
        contested = table.models.contested
        if newly := sorted(contested.keys() - before.contested.keys()):
            name, services = newly[0], contested[newly[0]]
            others = f" and {len(newly) - 1} more" if len(newly) > 1 else ""
            logger.warning(
                "several services have the model {}{}; name the service too, as in {}/{} or {}/{}",
                *(name, others, services[0], name, services[1], name),
            )

    def _routes(self, offers: tuple[Offer, ...]) -> RoutingTable:
        return RoutingTable.of(
            offers, self._management, plain_reader(offer.abilities.parameters for offer in offers)
        )

    def protect(self, guard: Guard) -> None:
        """Have a guard decide who may call, from the next request on."""
        self.shared.guard = guard
        self.shared.generation = object()
        guard.listen(self._reconsider)

    def _reconsider(self) -> None:
        """Ask the guard again about every head, and about every request under way."""
        self.shared.generation = object()
        guard, revoked = self.shared.guard, InvalidKeyError("the API key of this request has been revoked")
        for connection in self.connections:
            try:
                connection.break_off(lambda one: not guard.is_good(one.plan.principal), revoked)
            except Exception as error:  # noqa: BLE001 - one connection must not shield the others
                logger.opt(exception=error).error("{} could not be reconsidered; it is cut off", connection)
                connection.abort()

    async def listen(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        frontend: Frontend = OPENAI,
        guard: Guard | None = None,
    ) -> int:
        """Bind an address and return its port; clients are accepted from `accept` on.

        Args:
            host: Name or address.
            port: 0 for a free one.
            tls: To speak TLS there.
            frontend: What is answered there.
            guard: Decides who may call there; None for the gateway's own.

        Raises:
            OSError: The address cannot be bound.
        """
        listener = Listener(self, frontend, guard)
        server = await asyncio.get_running_loop().create_server(
            partial(ClientConnection, listener),
            host,
            port,
            backlog=BACKLOG,
            reuse_address=True,
            start_serving=False,
        )
        for bound in server.sockets:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted sockets inherit it
        bound_port: int = server.sockets[0].getsockname()[1]
        if tls is None:
            self._servers.append(server)
        else:
            timeout = self.shared.limits.head_timeout
            self._servers.append(TlsListener(listener, server.sockets, tls, timeout, BACKLOG))
            server.close()
        return bound_port

    async def redirect(self, host: str, port: int, https_port: int, challenges: Mapping[str, bytes]) -> int:
        """Send clients of plain HTTP on to https, from now on; return the port.

        Args:
            host: Name or address.
            port: 0 for a free one.
            https_port: Where clients are sent.
            challenges: Answers to an authority's challenges, by token; they may change.

        Raises:
            OSError: The address cannot be bound.
        """
        bound_port = await self.listen(
            host, port, frontend=redirect_to(https_port, challenges), guard=OpenGuard()
        )
        await self._servers[-1].start_serving()
        return bound_port

    async def listen_to_owner(self, bound: socket.socket) -> None:
        """Serve everybody who may open a Unix socket, without a key; from `accept` on.

        Args:
            bound: The socket.
        """
        listener = Listener(self, OPENAI, OpenGuard())
        server = await asyncio.get_running_loop().create_unix_server(
            partial(ClientConnection, listener), sock=bound, start_serving=False
        )
        self._servers.append(server)

    async def accept(self) -> None:
        """Accept clients on every address that was bound."""
        for server in self._servers:
            await server.start_serving()

    def abort(self) -> None:
        """Cut off every client."""
        for connection in tuple(self._connections):
            connection.abort()

    async def close(self) -> None:
        """Stop accepting, let requests in flight finish within the time limit, then cut the rest off."""
        self.shared.closing = True
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.close_when_done()
        try:
            async with asyncio.timeout(self.shared.limits.shutdown_timeout):
                await self._until_empty()
        except TimeoutError:
            self.abort()
            with suppress(TimeoutError):
                async with asyncio.timeout(ABORT_TIMEOUT):
                    await self._until_empty()
        await cancel(self._sweeper)
        self.shared.reader.shutdown(wait=False, cancel_futures=True)
        self.shared.pools.sweep(0)

    async def _until_empty(self) -> None:
        while self._connections:
            self._empty.clear()
            await self._empty.wait()

    def enter(self, connection: Connection) -> bool:
        """Count a connection; False when there are too many already."""
        full = len(self._connections) >= self.shared.limits.max_connections
        self._connections.add(connection)
        return not full

    @property
    def is_reserve_full(self) -> bool:
        """Whether the connections for health checks are used up as well."""
        return len(self._connections) > self.shared.limits.max_connections + HEALTH_RESERVE

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def _sweep(self) -> None:
        """Look after every time limit at once: a timer per request would cost more than the request."""
        shared = self.shared
        while True:
            await asyncio.sleep(self._sweep_interval)
            now = shared.now()
            for connection in self.connections:
                try:
                    self._sweep_connection(connection, now)
                except Exception as error:  # noqa: BLE001 - one connection must not keep the others from their limits
                    logger.opt(exception=error).error("{} could not be swept; it is cut off", connection)
                    connection.abort()
            shared.pools.sweep(max(1, round(MAX_IDLE / self._sweep_interval)))
            shared.guard.sweep()
            shared.recorder.settle()
            self._check_files()

    def _check_files(self) -> None:
        """Log, once, that no file can be opened: an event loop says nothing of it, or floods the log."""
        try:
            os.close(os.dup(0))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and not self._lacks_files:
                self._lacks_files = True
                logger.error(
                    "new clients are not served: {}; raise that limit with 'ulimit -n', or LimitNOFILE= of"
                    " the systemd unit",
                    error.strerror,
                )
        else:
            if self._lacks_files:
                logger.warning("new clients are served again: files can be opened")
            self._lacks_files = False

    def _sweep_connection(self, connection: ClientConnection, now: float) -> None:
        repeated = connection.repeated_plan()
        if isinstance(repeated, Plan):
            self.shared.guard.seen(repeated.principal)
        connection.sweep(now)


def leave_out_failed_accepts(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle what an event loop reports, but not each failure to accept: asyncio's has thousands a second."""
    if not str(context.get("message")).startswith("socket.accept() out of system resource"):
        loop.default_exception_handler(context)


class Listener:
    """One address: what is answered there, and who decides who may call.

    Attributes:
        state: What all its connections look up.
        handler: Makes what answers a request, of a connection and a plan.

    Args:
        gateway: That it belongs to.
        frontend: What is answered.
        guard: Decides there; None for the gateway's own.
    """

    def __init__(self, gateway: Gateway, frontend: Frontend, guard: Guard | None = None) -> None:
        self.state = gateway.shared
        self.handler = partial(Exchange, gateway.shared)
        self.enter = gateway.enter
        self._gateway = gateway
        self.leave = gateway.leave
        self._frontend = frontend
        self._guard = guard

    @property
    def is_reserve_full(self) -> bool:
        """Whether the connections for health checks are used up as well."""
        return self._gateway.is_reserve_full

    def is_public(self, target: bytes) -> bool:
        """Return whether a target needs no key."""
        return self._frontend.scope(target) is None

    def plan(self, request: Request, headers: list[Header], peer: str) -> Plan:
        """Decide what the head of a request decides."""
        return make_plan(self.state, self._frontend, self._guard or self.state.guard, request, headers, peer)

    def refusal(self, client: ClientConnection, error: ProxyError, method: bytes) -> Exchange:
        """Return what answers something that never became a request."""
        return Exchange(self.state, client, refused(self._frontend, error, method))
