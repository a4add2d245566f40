"""The data plane: owns the public listeners and everything that the exchanges share."""

import asyncio
import itertools
import secrets
import socket
import ssl
import time
from collections.abc import Iterable

from ai_proxy.core.ports import Admission, Recorder, Tracing
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import Upstream
from ai_proxy.core.settings import Limits
from ai_proxy.core.usage import LiveRequest
from ai_proxy.gateway.connection import ClientConnection
from ai_proxy.gateway.entries import OPENAI, Front
from ai_proxy.gateway.guard import Guard, OpenGuard
from ai_proxy.gateway.inference import ModelExchange
from ai_proxy.gateway.pool import MAX_IDLE, Pools
from ai_proxy.gateway.route import Destination, RoutingTable
from ai_proxy.platform.clock import SystemClock
from ai_proxy.platform.tasks import cancel, spawn

BACKLOG = 2048
TLS_SHUTDOWN = 2.0
"""Seconds for a client to agree that a TLS connection ends."""


class Gateway:
    """Accepts clients and forwards their requests.

    Attributes:
        tracing: Traces requests to models; None for not at all.
        guard: Decides who may call.
        stamp: Another one whenever something changes that decides what becomes of a head.
        next_request_id: Returns an id that no other request of this proxy has had.

    Args:
        admission: Says which upstream a request may use.
        recorder: Is told of every exchange.
        limits: What one client may take.
        management: Where the management app listens.
        sweep_interval: Seconds between two looks for overdue connections; the grain of every time limit.
        heartbeat: Seconds after which, and between which, the client of a stream hears of a load under way.
    """

    def __init__(
        self,
        admission: Admission,
        recorder: Recorder,
        limits: Limits,
        management: Upstream,
        sweep_interval: float = 1.0,
        heartbeat: float = 2.0,
    ) -> None:
        self.admission = admission
        self.recorder = recorder
        self.limits = limits
        self.heartbeat = heartbeat
        self.tracing: Tracing | None = None
        self.clock = SystemClock()
        self.now = time.monotonic
        self.pools = Pools()
        self.closing = False
        self.epoch = time.time() - time.monotonic()
        self.management = Destination("", upstream=management)
        self.management.pool = self.pools.of(management)
        self.table = RoutingTable.of((), self.management)
        self.guard: Guard = OpenGuard()
        self.stamp = object()
        self._connections: set[ClientConnection] = set()
        self._empty = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self.next_request_id = map(
            (secrets.token_hex(4).encode() + b"-%x").__mod__, itertools.count(1)
        ).__next__
        self._sweep_interval = sweep_interval
        self._sweeper = spawn(self._sweep(), "gateway sweep")

    def __repr__(self) -> str:
        return f"<Gateway [{len(self._connections)} connections, {len(self.table.services)} services]>"

    def live(self) -> list[LiveRequest]:
        """Return the requests to models that are not over."""
        now = self.now()
        current = [connection.current for connection in self._connections]
        return [exchange.live(now) for exchange in current if isinstance(exchange, ModelExchange)]

    def publish(self, offers: Iterable[Offer]) -> None:
        """Swap the routing table; requests already routed go on as they were."""
        self.table = RoutingTable.of(offers, self.management)
        self.stamp = object()

    def protect(self, guard: Guard) -> None:
        """Have a guard decide who may call, from the next request on."""
        self.guard = guard
        guard.listen(self._reconsider)

    def _reconsider(self) -> None:
        """Ask the guard again about every head, and about every request under way."""
        self.stamp = object()
        for connection in tuple(self._connections):
            connection.expel()

    async def listen(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, front: Front = OPENAI
    ) -> int:
        """Bind an address and return its port; clients are taken from `accept` on.

        Args:
            host: Name or address.
            port: 0 for a free one.
            tls: To speak TLS there.
            front: What is answered there.

        Raises:
            OSError: The address cannot be had.
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: ClientConnection(self, front),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=(self.limits.head_timeout or None) if tls else None,
            ssl_shutdown_timeout=TLS_SHUTDOWN if tls else None,
            backlog=BACKLOG,
            reuse_address=True,
            start_serving=False,
        )
        for listening in server.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted sockets inherit it
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def listen_to_owner(self, listener: socket.socket) -> None:
        """Serve whoever may open a Unix socket without asking for a key; from `accept` on.

        Args:
            listener: Bound.
        """
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: ClientConnection(self, OPENAI, OpenGuard()), sock=listener, start_serving=False
        )
        self._servers.append(server)

    async def accept(self) -> None:
        """Take clients on every address that was bound."""
        for server in self._servers:
            await server.start_serving()

    def abort(self) -> None:
        """Cut off every client."""
        for connection in tuple(self._connections):
            connection.transport.abort()

    async def close(self) -> None:
        """Stop accepting, let requests in flight finish within the time limit, then cut the rest off."""
        self.closing = True
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.close_when_done()
        try:
            async with asyncio.timeout(self.limits.shutdown_timeout):
                await self._until_empty()
        except TimeoutError:
            self.abort()
            await self._until_empty()
        await cancel(self._sweeper)
        self.pools.sweep(0)

    async def _until_empty(self) -> None:
        while self._connections:
            self._empty.clear()
            await self._empty.wait()

    def enter(self, connection: ClientConnection) -> bool:
        """Take a connection in; False when there are too many already."""
        full = len(self._connections) >= self.limits.max_connections
        self._connections.add(connection)
        return not full

    def leave(self, connection: ClientConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def _sweep(self) -> None:
        """Look after every time limit at once: a timer per request would cost more than the request."""
        while True:
            await asyncio.sleep(self._sweep_interval)
            now = self.now()
            self.guard.sweep()
            for connection in tuple(self._connections):
                connection.sweep(now)
            self.recorder.settle()
            self.pools.sweep(max(1, round(MAX_IDLE / self._sweep_interval)))
