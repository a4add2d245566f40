"""The Unix sockets of the management API; the web server is loaded when somebody connects first."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Scope

from ai_proxy.api.middleware import Caller, Middleware
from ai_proxy.platform.tasks import Background, cancel

if TYPE_CHECKING:
    from ai_proxy.api.server import UnixServer

BACKLOG = 1024
"""Connections that the kernel holds until they are accepted."""


@asynccontextmanager
async def serve_unix(
    path: Path, app: ASGIApp, caller: Callable[[Scope], Caller], background: Background | None = None
) -> AsyncIterator[Callable[[], None]]:
    """Serve an application on a Unix socket for as long as the context lasts.

    Yields what makes the socket again once its file was deleted; whoever is connected already stays so.

    Args:
        path: Of the socket file, which only its owner can open.
        app: May be served on several sockets at once.
        caller: Returns who sent a request to this socket.
        background: Runs the server; None for one of its own.

    Raises:
        OSError: The socket cannot be made.
    """
    owner = background or Background()
    served: list[tuple[socket.socket, asyncio.Task[None]]] = []

    def make_server() -> "UnixServer":
        from ai_proxy.api.server import UnixServer

        return UnixServer(Middleware(app, caller))

    def listen() -> None:
        listener = listen_private(path)
        listener.listen(BACKLOG)
        serve = partial(_serve_when_asked, listener, make_server)
        served.append((listener, owner.run(serve, f"serve {path.name}")))

    listen()
    try:
        yield listen
    finally:
        await cancel(*(serving for _, serving in served))
        for listener, _ in served:
            listener.close()
        _remove_socket(path)


async def _serve_when_asked(listener: socket.socket, make_server: Callable[[], "UnixServer"]) -> None:
    """Serve from the first connection on."""
    loop, connected = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, connected.set)
    try:
        await connected.wait()
    finally:
        loop.remove_reader(listener)
    server = await asyncio.to_thread(make_server)
    await server.serve_on(listener.dup())


def listen_private(path: Path) -> socket.socket:
    """Bind a Unix socket that nobody but its owner can open, in place of one left over from before.

    Raises:
        OSError: It cannot be made, or a file that is no socket is in the way.
    """
    _remove_socket(path)
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


def _remove_socket(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} is in the way: it is not a socket")
        path.unlink()
