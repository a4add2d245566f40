"""TLS listeners, on which a connection counts before its handshake: a client may drag that out."""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from functools import partial

from loguru import logger

from ai_proxy.gateway.http.client import RESERVE_TIMEOUT, ClientConnection, Server
from ai_proxy.platform.tasks import spawn

SHUTDOWN = 2.0
"""Seconds for a client to agree that a TLS connection ends."""
NO_LIMIT = 86_400.0
"""Seconds for a handshake where there is no limit: asyncio takes None for its own."""
ACCEPT_PAUSE = 1.0
"""Seconds without accepting when the process has no file descriptor left."""


class TlsListener:
    """Accepts TLS connections; stands in for `asyncio.Server`, which accepts only after the handshake.

    Args:
        server: Counts the connections.
        bound: Sockets, bound.
        context: Certificates and protocol versions.
        timeout: For a handshake, in seconds; 0 for no limit.
        backlog: Connections that the kernel keeps until they are accepted.
    """

    def __init__(
        self,
        server: Server,
        bound: Sequence[socket.socket],
        context: ssl.SSLContext,
        timeout: float,
        backlog: int,
    ) -> None:
        # The sockets belong to an `asyncio.Server` that is closed without ever serving.
        self.sockets = [socket.socket(fileno=os.dup(one.fileno())) for one in bound]
        self._server = server
        self._context = context
        self._timeout = timeout
        self._backlog = backlog
        self._failing = False

    def __repr__(self) -> str:
        return f"<TlsListener [{len(self.sockets)} sockets]>"

    async def start_serving(self) -> None:
        """Accept connections from now on."""
        for listening in self.sockets:
            listening.setblocking(False)
            listening.listen(self._backlog)
            self._watch(listening)

    def close(self) -> None:
        """Accept nothing more."""
        for listening in self.sockets:
            if listening.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(listening)
            listening.close()

    def _watch(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept what waits, as `asyncio` does: a whole backlog at once would keep everybody else waiting."""
        for _ in range(100):
            try:
                accepted, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listening, error)
                return
            self._failing = False
            self._begin(accepted)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Accept nothing for a moment; what is out now, such as file descriptors, is still out at once."""
        if not self._failing:
            self._failing = True
            logger.error("cannot accept connections: {}; trying again every {:g} s", error, ACCEPT_PAUSE)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(ACCEPT_PAUSE, self._watch, listening)

    def _begin(self, accepted: socket.socket) -> None:
        """Begin a handshake, also for some connections above `max_connections`: they may be health checks."""
        accepted.setblocking(False)
        handshake = TlsHandshake(accepted)
        timeout = self._timeout
        if not self._server.enter(handshake):
            timeout = min(timeout or RESERVE_TIMEOUT, RESERVE_TIMEOUT)
            if self._server.is_reserve_full:
                self._server.leave(handshake)
                accepted.close()
                return
        handshake.begin(self._server, self._context, timeout)


class TlsHandshake:
    """An accepted connection until its handshake is over; then the client's connection takes its place."""

    def __init__(self, accepted: socket.socket) -> None:
        self._accepted = accepted
        self._has_begun = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<TlsHandshake [socket {self._accepted.fileno()}]>"

    def begin(self, server: Server, context: ssl.SSLContext, limit: float) -> None:
        """Shake hands, in a task."""

        def end(_: asyncio.Task[None]) -> None:
            server.leave(self)
            if not self._has_begun:
                self._accepted.close()  # nobody else has taken it

        self._task = spawn(self._shake_hands(server, context, limit), "TLS handshake")
        self._task.add_done_callback(end)

    def abort(self) -> None:
        """Cut the client off."""
        if self._task is not None:
            self._task.cancel()

    close_when_done = abort

    async def _shake_hands(self, server: Server, context: ssl.SSLContext, limit: float) -> None:
        self._has_begun = True
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                partial(ClientConnection, server, self),
                self._accepted,
                ssl=context,
                ssl_handshake_timeout=limit or NO_LIMIT,
                ssl_shutdown_timeout=SHUTDOWN,
            )
        except (OSError, ssl.SSLError) as error:
            logger.debug("a TLS handshake failed: {}", error)
