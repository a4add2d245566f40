"""A backend that says exactly the bytes a test wants, when it wants."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.rigs.raw_http import PATIENCE, Message, RawConnection, TruncatedError, read_request

from ai_proxy.core.service import Upstream
from ai_proxy.platform.tasks import cancel, spawn


class BackendConnection(RawConnection):
    """A connection that the proxy has made.

    Attributes:
        number: 1 for the first connection to this backend, and so on.
        requests: What has been read from it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        super().__init__(reader, writer)
        self.number = number
        self.requests: list[Message] = []

    async def request(self) -> Message | None:
        """Read the next request; None when the proxy has closed the connection before its end."""
        try:
            request = await read_request(self.reader)
        except (ConnectionError, TruncatedError):
            return None
        if request is not None:
            self.requests.append(request)
        return request


type Script = Callable[[BackendConnection], Awaitable[None]]


def ok(body: bytes, *headers: bytes) -> bytes:
    """Return a response with a body of known length."""
    lines = (b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers)
    return b"\r\n".join((*lines, b"", body))


async def echo(connection: BackendConnection) -> None:
    """Answer every request with its first line and its body."""
    while (request := await connection.request()) is not None:
        await connection.send(ok(request.first_line + b"|" + request.body))


async def by_hand(connection: BackendConnection) -> None:
    """Do nothing: the test itself plays the backend."""
    await asyncio.Event().wait()


def answer(*responses: bytes) -> Script:
    """Return a script that answers with these bytes in turn, the last of them for ever."""

    async def run(connection: BackendConnection) -> None:
        served = 0
        while await connection.request() is not None:
            await connection.send(responses[min(served, len(responses) - 1)])
            served += 1

    return run


def answer_and_close(response: bytes, *, reset: bool = False) -> Script:
    """Return a script that answers one request and ends the connection."""

    async def run(connection: BackendConnection) -> None:
        await connection.request()
        await connection.send(response)
        if reset:
            connection.reset()

    return run


async def all_accepted() -> None:
    """Let the servers of this loop get the connections that have been accepted for them.

    asyncio takes three turns to hand one over; a server that is closed meanwhile leaves its socket open.
    """
    for _ in range(3):
        await asyncio.sleep(0)


class RawBackend:
    """Runs a script for every connection; an error in a script fails `close`.

    Attributes:
        script: What the next connections do.
        connections: Every connection so far.
    """

    def __init__(self, script: Script = echo) -> None:
        self.script = script
        self.connections: list[BackendConnection] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._errors: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._connected = asyncio.Event()

    async def listen(self) -> Upstream:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048)
        return Upstream("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def listen_unix(self, path: str) -> Upstream:
        """Listen on a Unix socket."""
        self._server = await asyncio.start_unix_server(self._serve, path)
        return Upstream("unix", 0, unix_path=path)

    @property
    def requests(self) -> list[Message]:
        """Every request so far, by connection."""
        return [request for connection in self.connections for request in connection.requests]

    async def connection(self, number: int = 1) -> BackendConnection:
        """Wait for a connection."""
        async with asyncio.timeout(PATIENCE):
            while len(self.connections) < number:
                self._connected.clear()
                await self._connected.wait()
        return self.connections[number - 1]

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = BackendConnection(reader, writer, len(self.connections) + 1)
        self.connections.append(connection)
        self._connected.set()
        self._tasks.append(spawn(self._play(connection), "backend"))

    async def _play(self, connection: BackendConnection) -> None:
        try:
            await self.script(connection)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the proxy, or the test, has ended it
        except Exception as error:  # noqa: BLE001 - told by close
            self._errors.append(error)
        finally:
            connection.writer.close()

    async def stop(self) -> None:
        """Stop listening; connections that stand go on."""
        assert self._server is not None
        self._server.close()

    async def close(self) -> None:
        """End everything, and raise what went wrong in a script."""
        await all_accepted()
        await self.stop()
        await cancel(*self._tasks)
        for connection in self.connections:
            connection.writer.transport.abort()
        if self._errors:
            raise ExceptionGroup(
                "a backend's script failed", [e for e in self._errors if isinstance(e, Exception)]
            )
