"""Serving an application on a Unix socket, within the process and the event loop of the proxy."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Scope

from ai_proxy.api.middleware import Caller, Middleware
from ai_proxy.platform.tasks import cancel, spawn

GRACE = 5.0
"""Seconds for requests under way when a server is stopped."""


class UnixServer(uvicorn.Server):
    """A server that listens on one Unix socket, and that leaves signals and logging to the program."""

    def __init__(self, app: Middleware, path: Path, grace: float = GRACE) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._app = app
        self._path = path
        self._grace = grace
        self._ticks: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Return when connections are accepted.

        Raises:
            OSError: The socket cannot be made.
        """
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        self._socket = listen_private(self._path)
        await self.startup(sockets=[self._socket])
        self._ticks = spawn(self.main_loop(), f"api-{self._path.name}")

    async def main_loop(self) -> None:
        """Keep the Date header fresh; uvicorn's own loop wakes up ten times as often to look for signals."""
        while True:
            await self.on_tick(0)
            await asyncio.sleep(1.0)

    async def stop(self) -> None:
        """Accept nothing more, end the streams, let the other requests finish, remove the socket file.

        Takes no longer than the requests under way; uvicorn's own shutdown looks for their end every 0.1 s.
        """
        if self._socket is None:
            return
        self._app.close()
        await cancel(self._ticks)
        for server in self.servers:
            server.close()
        for connection in tuple(self.server_state.connections):
            connection.shutdown()
        if requests := tuple(self.server_state.tasks):
            await asyncio.wait(requests, timeout=self._grace)
            await cancel(*requests)
        self._socket.close()
        self._socket = None
        self._path.unlink(missing_ok=True)


@asynccontextmanager
async def serve_unix(
    app: ASGIApp, path: Path, caller: Callable[[Scope], Caller]
) -> AsyncIterator[UnixServer]:
    """Serve an application on a Unix socket for as long as the context lasts.

    Args:
        app: May be served on several sockets at once.
        path: Of the socket file, which only its owner can open.
        caller: Returns who sent a request to this socket.
    """
    server = UnixServer(Middleware(app, caller), path)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def listen_private(path: Path) -> socket.socket:
    """Bind a Unix socket that nobody but its owner can open, in place of one left over from before.

    Raises:
        OSError: It cannot be made, or a file that is no socket is in the way.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # from its first moment: chmod afterwards would leave it open for a while
    try:
        listener.bind(os.fspath(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} is in the way: it is not a socket")
        path.unlink()
