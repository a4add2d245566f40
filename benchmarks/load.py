"""Clients: they send requests, check every answer to the last byte, and count."""

import asyncio
import contextlib
import random
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Protocol, cast
from zlib import crc32

import httptools

from benchmarks.messages import EVENT_BYTES, Request, words

PATIENCE = 20.0
RAMP_BATCH = 50
RAMP_PAUSE = 0.02


class Client(asyncio.Protocol):
    """One keep-alive connection that carries one exchange at a time.

    Attributes:
        busy: Whether an answer is awaited.
        length: Body bytes of the current answer so far.
        seconds: Duration of the exchange that ended last.
        first: Of that, the seconds until the first piece of the body.
    """

    def __init__(self) -> None:
        self.busy = False
        self.length = 0
        self.seconds = 0.0
        self.first = 0.0
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._request: Request
        self._ended: Callable[[Client, str], None]
        self._sent_at = 0.0
        self._crc = 0
        self._body: bytearray | None = None

    def send(self, request: Request, ended: "Callable[[Client, str], None]") -> None:
        """Send a request; `ended` is told this client and what was wrong with the answer, in words.

        An empty word means that all was well.
        """
        self._request, self._ended = request, ended
        self.length = self._crc = 0
        self._body = None if request.words is None else bytearray()
        if self._transport.is_closing():
            ended(self, "connection closed by the proxy")
            return
        self.busy = True
        self._sent_at = time.perf_counter()
        self._transport.write(request.wire)

    def events(self) -> int:
        """Return how many chunks of the current stream have come."""
        return self.length // EVENT_BYTES if self._body is None else self._body.count(b'"content"')

    def close(self) -> None:
        """Leave, whatever is still to come."""
        self.busy = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"not HTTP: {error}")
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._end(f"broke off: {exc}" if exc else "broke off")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body from the parser."""
        if not self.length:
            self.first = time.perf_counter() - self._sent_at
        self.length += len(body)
        self._crc = crc32(body, self._crc)
        if self._body is not None:
            self._body += body

    def on_message_complete(self) -> None:
        """Take the end of the message from the parser."""
        self._end(self._fault())

    def _end(self, fault: str) -> None:
        if self.busy:
            self.busy = False
            self.seconds = time.perf_counter() - self._sent_at
            self._ended(self, fault)

    def _fault(self) -> str:
        status, request = self._parser.get_status_code(), self._request
        if status != 200:
            return f"status {status}"
        if self._body is not None:
            return "" if words(self._body) == request.words else "the text differs"
        if self.length != request.length:
            return f"{self.length} bytes instead of {request.length}"
        return "" if self._crc == request.crc else "the checksum differs"


class Load(Protocol):
    """Work that goes on until it is finished."""

    faults: Counter[str]

    def units(self) -> int:
        """Return how much has been done: answers, or chunks of streams."""

    async def finish(self) -> None:
        """Ask for no more and wait for what is under way; what never comes counts as a fault."""


class Requests:
    """Every client sends its next request when the answer is there, and not before its time has come.

    Attributes:
        faults: What went wrong, and how often.
        latencies: Seconds from sending a request to the end of its answer.
    """

    def __init__(self, clients: list[Client], request: Request, interval: float = 0.0) -> None:
        """Take over connected clients.

        Args:
            clients: Connected clients.
            request: What each sends, again and again.
            interval: Seconds between the requests of one client; 0 for as fast as it can.
        """
        self.faults: Counter[str] = Counter()
        self.latencies = array("d")
        self._clients = clients
        self._request = request
        self._interval = interval
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        phases = random.Random(1)  # noqa: S311  # spreads load, guards nothing
        now = time.monotonic()
        self._due = {client: now + phases.random() * interval for client in clients}
        for client in clients:
            self._next(client)

    def units(self) -> int:
        """Return how many answers have come, right or wrong."""
        return len(self.latencies)

    async def finish(self) -> None:
        """Stop sending and wait for the answers that are due."""
        self._stopping = True
        await _settle(self._clients, self.faults)

    def _next(self, client: Client) -> None:
        """Send at the client's own times, lest clients that were answered together go on together."""
        if not self._interval:
            self._send(client)
            return
        now = time.monotonic()
        self._loop.call_later(max(0.0, self._due[client] - now), self._send, client)
        self._due[client] = max(now, self._due[client] + self._interval)

    def _send(self, client: Client) -> None:
        if not self._stopping:
            client.send(self._request, self._ended)

    def _ended(self, client: Client, fault: str) -> None:
        self.latencies.append(client.seconds)
        if fault:
            self.faults[fault] += 1
            if fault.startswith(("broke", "connection")):
                return
        self._next(client)


class Streams:
    """Every client asks for one stream.

    Attributes:
        faults: What went wrong, and how often.
        whole: Streams that came to their end unharmed.
    """

    def __init__(self, clients: list[Client], request: Request) -> None:
        self.faults: Counter[str] = Counter()
        self.whole = 0
        self._clients = clients
        for client in clients:
            client.send(request, self._ended)

    def units(self) -> int:
        """Return how many chunks have come."""
        return sum(client.events() for client in self._clients)

    async def finish(self) -> None:
        """Wait for every stream to end."""
        await _settle(self._clients, self.faults)

    def _ended(self, client: Client, fault: str) -> None:
        del client
        if fault:
            self.faults[fault] += 1
        else:
            self.whole += 1


@contextlib.asynccontextmanager
async def clients(port: int, count: int) -> AsyncIterator[list[Client]]:
    """Connect clients to a port of 127.0.0.1, a few at a time; close them when left.

    Raises:
        OSError: The port does not accept them.
    """
    connected: list[Client] = []
    loop = asyncio.get_running_loop()
    try:
        while len(connected) < count:
            for _ in range(min(RAMP_BATCH, count - len(connected))):
                _, client = await loop.create_connection(Client, "127.0.0.1", port)
                connected.append(client)
            if len(connected) < count:
                await asyncio.sleep(RAMP_PAUSE)
        yield connected
    finally:
        for client in connected:
            client.close()


async def exchange(client: Client, request: Request, patience: float = PATIENCE) -> str:
    """Send one request; return what was wrong with the answer, empty if nothing.

    Raises:
        TimeoutError: No whole answer within so many seconds.
    """
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    client.send(request, lambda _, fault: answered.set_result(fault))
    async with asyncio.timeout(patience):
        return await answered


async def _settle(busy: list[Client], faults: Counter[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(client.busy for client in busy) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    for client in busy:
        if client.busy:
            faults["no answer in time"] += 1
            client.close()
