"""A fake engine that costs far less than any proxy in front of it.

It knows four things: a small chat answer, a stream of chunks at a steady pace, taking an upload, and a tunnel
that sends back what comes.
"""

import argparse
import asyncio
import gc
import json
import random
import re
import time
from functools import cache
from typing import cast
from zlib import crc32

import uvloop

from benchmarks.messages import ANSWER, DONE, event, receipt

TICK = 0.001
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def answer(body: bytes) -> bytes:
    """Return a whole response around a JSON body."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def chunk(data: bytes) -> bytes:
    r"""Return data framed as one chunk of a message (RFC 9112 section 7.1).

    >>> chunk(b"hello")
    b'5\r\nhello\r\n'
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


_CHAT_ANSWER = answer(ANSWER)
_MODELS = answer(b'{"object":"list","data":[{"id":"bench","object":"model","owned_by":"bench"}]}')


@cache
def frame(number: int) -> bytes:
    """Return one event of a stream, framed."""
    return chunk(event(number))


class Stream:
    """A response that is being streamed."""

    def __init__(self, transport: asyncio.Transport, chunks: int) -> None:
        self._transport = transport
        self._chunks = chunks
        self._sent = 0

    def send_next(self) -> bool:
        """Send one chunk; tell whether there are more."""
        if self._transport.is_closing():
            return False
        data = frame(self._sent)
        self._sent += 1
        more = self._sent < self._chunks
        self._transport.write(data if more else data + chunk(DONE) + b"0\r\n\r\n")
        return more


class Lag:
    """How late chunks have been."""

    def __init__(self) -> None:
        self._chunks = 0
        self._total = self._worst = 0.0

    def add(self, chunks: int, seconds: float) -> None:
        """Take note that so many chunks were that late."""
        if chunks:
            self._chunks += chunks
            self._total += chunks * seconds
            self._worst = max(self._worst, seconds)

    def report(self) -> dict[str, float]:
        """Return mean and worst lag in milliseconds since the last report."""
        mean, worst = self._total / max(1, self._chunks), self._worst
        self._chunks, self._total, self._worst = 0, 0.0, 0.0
        return {"mean_ms": 1000 * mean, "worst_ms": 1000 * worst}


class Wheel:
    """Sends the next chunk of every stream of one rate when it is due.

    It turns once in the time from chunk to chunk, by one place a `TICK`. Each stream has a random place on
    it, the same ones in every run, so that they do not all speak at once. Late chunks go out as soon as
    possible; none is left out.
    """

    def __init__(self, rate: float, lag: Lag) -> None:
        self._places: list[list[Stream]] = [[] for _ in range(max(1, round(1 / rate / TICK)))]
        self._lag = lag
        self._at = 0
        self._due = 0.0
        self._random = random.Random(1)  # noqa: S311  # spreads load, guards nothing

    def add(self, stream: Stream) -> None:
        """Begin a stream."""
        if not any(self._places):
            self._due = time.monotonic()
            asyncio.get_running_loop().call_soon(self._turn)
        self._random.choice(self._places).append(stream)

    def _turn(self) -> None:
        now = time.monotonic()
        while self._due <= now:
            place = self._places[self._at]
            self._lag.add(len(place), now - self._due)
            self._places[self._at] = [stream for stream in place if stream.send_next()]
            self._at = (self._at + 1) % len(self._places)
            self._due += TICK
        if any(self._places):
            asyncio.get_running_loop().call_later(TICK, self._turn)


class Pacer:
    """Keeps one wheel for each rate."""

    def __init__(self) -> None:
        self.lag = Lag()
        self._wheels: dict[float, Wheel] = {}

    def add(self, stream: Stream, rate: float) -> None:
        """Begin a stream of that many chunks a second."""
        if rate not in self._wheels:
            self._wheels[rate] = Wheel(rate, self.lag)
        self._wheels[rate].add(stream)


class Upload:
    """A body that is being taken in."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._received = 0
        self._crc = 0

    def feed(self, data: bytes) -> bool:
        """Take a piece in; tell whether it was the last."""
        self._received += len(data)
        self._crc = crc32(data, self._crc)
        return self._received >= self._length

    def receipt(self) -> bytes:
        """Return the response that tells what was received."""
        return answer(receipt(self._received, self._crc))


class Connection(asyncio.Protocol):
    """One connection from a proxy or a client."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._transport: asyncio.Transport
        self._pending = b""
        self._upload: Upload | None = None
        self._tunnel = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._upload is not None:
            self._take_upload(data)
            return
        if self._tunnel:
            self._transport.write(data)
            return
        data = self._pending + data
        while data and self._upload is None:
            consumed = self._take_request(data)
            if not consumed:
                break
            data = data[consumed:]
        self._pending = b"" if self._upload else data

    def _take_request(self, data: bytes) -> int:
        """Answer the first request in the data; return its size, 0 when it is not complete."""
        body_at = data.find(b"\r\n\r\n") + 4
        if body_at < 4:
            return 0
        found = _LENGTH.search(data, 0, body_at)
        end = body_at + (int(found[1]) if found else 0)
        if data.startswith(b"POST /v1/files "):
            self._upload = Upload(end - body_at)
            self._take_upload(data[body_at:])
            return len(data)
        if len(data) < end:
            return 0
        self._answer(data, data[body_at:end])
        return end

    def _take_upload(self, data: bytes) -> None:
        assert self._upload is not None  # noqa: S101  # narrows the type
        if self._upload.feed(data):
            self._transport.write(self._upload.receipt())
            self._upload = None

    def _answer(self, head: bytes, body: bytes) -> None:
        if b'"stream"' in body and (order := json.loads(body))["stream"]:
            self._transport.write(_STREAM_HEAD)
            self._pacer.add(Stream(self._transport, int(order["max_tokens"])), float(order["user"]))
        elif head.startswith(b"POST "):
            self._transport.write(_CHAT_ANSWER)
        elif head.startswith(b"GET /socket "):
            self._tunnel = True
            self._transport.write(_SWITCH)
        elif head.startswith(b"GET /lag "):
            self._transport.write(answer(json.dumps(self._pacer.lag.report()).encode()))
        else:
            self._transport.write(_MODELS)


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until the process is ended."""
    pacer = Pacer()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(pacer), "127.0.0.1", port, backlog=4096)
    gc.freeze()
    await server.serve_forever()


def main() -> None:
    """Run the engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
