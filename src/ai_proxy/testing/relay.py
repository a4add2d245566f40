r"""A TCP relay that simulates network faults between a client and a server.

Each direction has a chain of toxics, which are applied in order. A toxic transforms the stream of bytes:

    async with running_relay(engine_port) as relay:
        relay.to_client = (latency(0.2), cut(after=b"\r\n\r\n"))
        ...  # clients of relay.port get delayed answers, which are cut after their head
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from ai_proxy.platform.tasks import cancel, spawn

__all__ = ["Relay", "Toxic", "cut", "dribble", "half_open", "latency", "reset", "running_relay"]

type Pieces = AsyncIterator[bytes]
type Toxic = Callable[[Pieces], Pieces]
"""Transforms the stream of bytes in one direction."""

_PIECE = 64 * 1024


class _CutError(Exception):
    """Ends both connections, by a close or a reset."""

    def __init__(self, *, by_reset: bool) -> None:
        super().__init__()
        self.by_reset = by_reset


def latency(seconds: float) -> Toxic:
    """Delay every piece."""

    async def late(pieces: Pieces) -> Pieces:
        async for piece in pieces:
            await asyncio.sleep(seconds)
            yield piece

    return late


def dribble(size: int = 1, pause: float = 0.0) -> Toxic:
    """Pass `size` bytes at a time, with `pause` seconds between."""

    async def dribbled(pieces: Pieces) -> Pieces:
        async for piece in pieces:
            for start in range(0, len(piece), size):
                yield piece[start : start + size]
                await asyncio.sleep(pause)

    return dribbled


def cut(after: int | bytes) -> Toxic:
    """Close both connections after a number of bytes, or after these bytes."""
    return _ending(after, by_reset=False)


def reset(after: int | bytes) -> Toxic:
    """Reset both connections after a number of bytes, or after these bytes."""
    return _ending(after, by_reset=True)


def half_open(after: int | bytes) -> Toxic:
    """Pass nothing more after a number of bytes, or after these bytes, not even the end of the connection."""

    async def silent(pieces: Pieces) -> Pieces:
        async for piece in _until(after, pieces):
            yield piece
        await asyncio.Event().wait()

    return silent


def _ending(after: int | bytes, *, by_reset: bool) -> Toxic:
    async def ended(pieces: Pieces) -> Pieces:
        async for piece in _until(after, pieces):
            yield piece
        raise _CutError(by_reset=by_reset)

    return ended


async def _until(after: int | bytes, pieces: Pieces) -> Pieces:
    """Yield the bytes up to a position, which may be within a piece."""
    passed = b""
    if after == 0:
        return
    async for piece in pieces:
        before, passed = len(passed), passed + piece
        found = -1
        if isinstance(after, int):
            end = min(after, len(passed))
            found = after if len(passed) >= after else -1
        else:
            found = passed.find(after)
            end = found + len(after) if found >= 0 else len(passed)
        if end > before:
            yield passed[before:end]
        if found >= 0:
            return


class Relay:
    """Listens on a port, and connects every client to a server.

    Attributes:
        port: The port on 127.0.0.1.
        accepted: Number of connections so far.
        to_server: The toxics for what clients send; a change applies to new connections.
        to_client: The toxics for what the server sends.
    """

    def __init__(self, server_port: int, host: str = "127.0.0.1") -> None:
        """Prepare it.

        Args:
            server_port: Of the server.
            host: Its address.
        """
        self.port = 0
        self.accepted = 0
        self.to_server: tuple[Toxic, ...] = ()
        self.to_client: tuple[Toxic, ...] = ()
        self._target = host, server_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Relay [127.0.0.1:{self.port} to {self._target[0]}:{self._target[1]}]>"

    async def listen(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End every connection."""
        assert self._server is not None
        self._server.close()
        await cancel(*self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = spawn(self._connect(reader, writer), "relay")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        by_reset = False
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            writers.append(server_writer)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(_pass(reader, server_writer, self.to_server))
                directions.create_task(_pass(server_reader, writer, self.to_client))
        except* _CutError as cuts:
            by_reset = any(one.by_reset for one in cuts.exceptions if isinstance(one, _CutError))
        except* OSError:
            by_reset = True  # one side was reset, so the other is too
        finally:
            for one in writers:
                _end(one, by_reset=by_reset)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, toxics: tuple[Toxic, ...]
) -> None:
    """Pass one direction on, through its toxics, with its end."""
    pieces = _read(reader)
    for toxic in toxics:
        pieces = toxic(pieces)
    async for piece in pieces:
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _read(reader: asyncio.StreamReader) -> Pieces:
    while piece := await reader.read(_PIECE):
        yield piece


def _end(writer: asyncio.StreamWriter, *, by_reset: bool) -> None:
    if by_reset:
        with suppress(OSError):
            on, no_time = 1, 0
            linger = struct.pack("ii", on, no_time)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    else:
        writer.close()


@asynccontextmanager
async def running_relay(server_port: int, host: str = "127.0.0.1") -> AsyncIterator[Relay]:
    """Run a relay beside a test.

    Args:
        server_port: Of the server that it leads to.
        host: Its address.
    """
    relay = Relay(server_port, host)
    await relay.listen()
    try:
        yield relay
    finally:
        await relay.close()
