"""Engines that answer as real ones were recorded to, byte by byte, and that can be had in a bad mood.

`python -m tests.rigs.recorded_engine ollama --port 11434 --mood slow` stands in for an Ollama.
"""

import argparse
import json
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ai_proxy.testing.fake_engine import Request, read_request

ENGINES = ("llamacpp", "vllm", "ollama", "lmstudio")

RECORDINGS = Path(__file__).parent / "recordings"

UNKNOWN = "/nope"
"""The path that was asked to see how an engine answers one that it does not know."""


class Mood(StrEnum):
    """How it behaves."""

    HEALTHY = "healthy"
    EMPTY = "empty"
    """As it was first recorded: Ollama without models."""
    SLOW = "slow"
    """Answers well, after a delay."""
    BUSY = "busy"
    """Answers 429."""
    LOADING = "loading"
    """Answers 503."""
    KEY_WANTED = "key-wanted"
    """Answers 401."""
    GARBAGE = "garbage"
    """Answers with something that is not HTTP."""
    SILENT = "silent"
    """Accepts connections and never answers."""
    HANGS_UP = "hangs-up"
    """Accepts connections and closes them."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and how it was answered.

    Attributes:
        method: Of the request.
        path: Of the request.
        body: Of the request.
        head: Of the answer: status line and headers.
        answer: Its body.
    """

    method: str
    path: str
    body: bytes
    head: tuple[str, ...]
    answer: bytes

    def header(self, name: str) -> str:
        """Return a header of the answer; empty when it has none of that name."""
        values = (line.partition(":")[2].strip() for line in self.head if line.lower().startswith(f"{name}:"))
        return next(values, "")


def recording(engine: str) -> list[Exchange]:
    """Return what was recorded of an engine, in order."""
    raw = (RECORDINGS / f"{engine}.http.txt").read_bytes()
    return [_exchange(block) for block in re.split(rb"^=== ", raw, flags=re.MULTILINE)[1:]]


def _exchange(block: bytes) -> Exchange:
    asked, _, rest = block.partition(b"\n")
    head, _, answer = rest.partition(b"\n\n")
    curl, _, body = asked.decode().partition(" -d ")
    method = re.search(r"-X (\w+)", curl)
    path = re.search(r"localhost:\d+(/\S*)", curl)
    assert path is not None, f"no path in {asked!r}"
    named = method[1] if method else "HEAD" if curl.startswith("-I ") else "POST" if body else "GET"
    exchange = Exchange(named, path[1], body.encode(), tuple(head.decode().splitlines()), answer)
    length = exchange.header("content-length")
    return Exchange(
        named, path[1], exchange.body, exchange.head, answer[: int(length)] if length else answer[:-1]
    )


def choose(exchanges: list[Exchange], request: Request, *, first: bool) -> Exchange:
    """Return how a request is answered: as the same was, else as one like it was, else as an unknown path.

    Args:
        exchanges: The recording.
        request: The request.
        first: Whether the first fitting exchange is taken instead of the last.
    """
    alike = [one for one in exchanges if (one.method, one.path) == (request.method, request.path)]
    same = [one for one in alike if one.body == request.body]
    if fitting := same or [one for one in alike if gist(one.body) == gist(request.body)] or alike:
        return fitting[0 if first else -1]
    unknown = next(one for one in exchanges if one.path == UNKNOWN)
    asked = f"({request.method} {request.path})".encode()
    return Exchange(
        request.method,
        request.path,
        request.body,
        unknown.head,
        unknown.answer.replace(f"(GET {UNKNOWN})".encode(), asked),
    )


def gist(body: bytes) -> tuple[str | None, bool]:
    """Return what sets one request to a model apart from another: the model, and whether it streams.

    >>> gist(b'{"model": "tiny:latest", "stream": true}'), gist(b"{bad")
    (('tiny', True), (None, False))
    """
    try:
        asked = json.loads(body)
    except ValueError:
        return None, False
    if not isinstance(asked, dict):
        return None, False
    return str(asked.get("model")).removesuffix(":latest"), bool(asked.get("stream"))


def rendered(exchange: Exchange, *, head_only: bool = False) -> bytes:
    """Return an answer as it goes over the wire, framed as it was."""
    body = b"" if head_only else exchange.answer
    lines = list(exchange.head)
    if exchange.header("transfer-encoding") == "chunked":
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (exchange.answer, b""))
    else:
        size = len(exchange.answer)
        lines = [re.sub(r"\d+$", f"{size}", line) if _is_length(line) else line for line in lines]
        if exchange.method == "HEAD":
            lines, body = list(exchange.head), b""
    return "\r\n".join([*lines, "", ""]).encode() + body


def _is_length(line: str) -> bool:
    return line.lower().startswith("content-length:")


REFUSALS = {
    Mood.BUSY: ("429 Too Many Requests", "Too many requests"),
    Mood.LOADING: ("503 Service Unavailable", "Loading model"),
    Mood.KEY_WANTED: ("401 Unauthorized", "Invalid API Key"),
}


def refusal(mood: Mood, like: Exchange) -> bytes:
    """Return an error, with the headers by which an engine is known."""
    status, message = REFUSALS[mood]
    body = b'{"error":{"message":"%b","type":"error","code":%d}}' % (message.encode(), int(status[:3]))
    server = like.header("server")
    lines = [f"HTTP/1.1 {status}", *([f"Server: {server}"] if server else [])]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Server(socketserver.ThreadingTCPServer):
    """Listens, and ends every connection when it is closed."""

    request_queue_size = 128
    allow_reuse_address = True  # a test may have another answer where one has just ended

    def __init__(self, port: int, engine: str, mood: Mood, delay: float) -> None:
        self.exchanges = recording(engine)
        self.mood = mood
        self.delay = delay
        self.ended = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection, and remember it."""
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: object) -> None:
        """Close a connection."""
        assert isinstance(request, socket.socket)
        self._open.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        """Stop listening and wake whoever waits for a client."""
        self.ended.set()
        self.shutdown()
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(socketserver.StreamRequestHandler):
    """Serves one connection."""

    server: _Server

    def handle(self) -> None:
        """Answer until the client leaves or the answer says that it is the last."""
        with suppress(OSError):
            if self.server.mood is Mood.HANGS_UP:
                return
            while (request := read_request(self.rfile)) and self._answer(request):  # type: ignore[arg-type]
                pass

    def _answer(self, request: Request) -> bool:
        mood = self.server.mood
        exchange = choose(self.server.exchanges, request, first=mood is Mood.EMPTY)
        if mood is Mood.SILENT:
            return not self.server.ended.wait()
        if mood is Mood.GARBAGE:
            self.wfile.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            return False
        if mood is Mood.SLOW:
            self.server.ended.wait(self.server.delay)
        if mood in REFUSALS:
            self.wfile.write(refusal(mood, exchange))
            return True
        self.wfile.write(rendered(exchange, head_only=request.method == "HEAD"))
        return exchange.header("connection").lower() != "close"


@contextmanager
def recorded_engine(
    engine: str, mood: Mood = Mood.HEALTHY, *, delay: float = 0.2, port: int = 0
) -> Iterator[int]:
    """Run an engine beside the test; yield its port.

    Args:
        engine: Which; one of `ENGINES`.
        mood: How it behaves.
        delay: SLOW: seconds before each answer.
        port: Where it listens; 0 for a free one.
    """
    server = _Server(port, engine, mood, delay)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name=engine)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.end()
        thread.join()


def main() -> None:
    """Run one until interrupted."""
    parser = argparse.ArgumentParser(description="An engine that answers as a real one was recorded to.")
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mood", type=Mood, choices=list(Mood), default=Mood.HEALTHY)
    parser.add_argument("--delay", type=float, default=2.0, help="slow: seconds before each answer")
    options = parser.parse_args()
    with (
        suppress(KeyboardInterrupt),
        recorded_engine(options.engine, options.mood, delay=options.delay, port=options.port) as port,
    ):
        print(f"listening on http://127.0.0.1:{port}", flush=True)  # noqa: T201 - its only output
        threading.Event().wait()


if __name__ == "__main__":
    main()
