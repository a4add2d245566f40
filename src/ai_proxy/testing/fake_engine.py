"""A real HTTP server that misbehaves on request.

`python -m ai_proxy.testing.fake_engine --port 8080 --behaviour die-mid-stream` speaks enough of OpenAI's API
to be taken for an engine. It has no need of asyncio, so it answers within a tenth of a second of its start.

Paths: `/health`, `/v1/models`, `/v1/chat/completions` (also streamed), `/echo...` (the request as JSON),
`/status/CODE`, `/bytes/COUNT`, `/stream?chunks=8&size=10&delay=0.01` (chunked).
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import parse_qsl, urlsplit

__all__ = ["Behaviour", "fake_engine_command", "running_fake_engine"]


class Behaviour(StrEnum):
    """What it does wrong."""

    OK = "ok"
    SLOW_LOAD = "slow-load"
    """Answers 503 for `--seconds` after its start."""
    NEVER_READY = "never-ready"
    """Answers 503 for ever."""
    EXIT_AT_ONCE = "exit-at-once"
    """Says why and exits with code 3."""
    CRASH_AFTER = "crash-after"
    """Exits with code 3 after `--requests` requests other than for health and models."""
    DIE_MID_STREAM = "die-mid-stream"
    """Exits with code 3 in the middle of a stream."""
    STALL = "stall"
    """Stops in the middle of a stream, and keeps the connection."""
    HANG = "hang"
    """Accepts connections and never answers."""
    GARBAGE = "garbage"
    """Answers with something that is not HTTP."""
    FLOOD_LOG = "flood-log"
    """Prints lines as fast as it can."""
    IGNORE_SIGTERM = "ignore-sigterm"
    """Does not end when asked to."""
    CHILDREN = "children"
    """Has two helper processes that do not end when asked to."""


def fake_engine_command(behaviour: Behaviour = Behaviour.OK, *options: str) -> tuple[str, ...]:
    """Return the command that a process service runs a fake engine with."""
    return (
        sys.executable,
        "-m",
        "ai_proxy.testing.fake_engine",
        "--port",
        "${port}",
        "--behaviour",
        behaviour,
        *options,
    )


@contextmanager
def running_fake_engine(behaviour: Behaviour = Behaviour.OK, *options: str) -> Iterator[int]:
    """Run a fake engine beside the test; yield its port."""
    import subprocess

    command = [word.replace("${port}", "0") for word in fake_engine_command(behaviour, *options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(int(line.rpartition(":")[2]) for line in process.stdout if "listening" in line)
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Options:
    """What it was started with; durations in seconds."""

    host: str
    port: int
    behaviour: Behaviour
    seconds: float
    requests: int
    words: int
    delay: float
    model: str
    healthy: bool

    @classmethod
    def parse(cls) -> "Options":
        """Read them from the command line."""
        parser = argparse.ArgumentParser(description="A fake engine that misbehaves on request.")
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, required=True)
        parser.add_argument("--behaviour", type=Behaviour, choices=list(Behaviour), default=Behaviour.OK)
        parser.add_argument("--seconds", type=float, default=1.0, help="slow-load: how long it loads")
        parser.add_argument("--requests", type=int, default=1, help="crash-after: how many it serves")
        parser.add_argument("--words", type=int, default=8, help="length of a chat answer")
        parser.add_argument("--delay", type=float, default=0.0, help="seconds between a stream's words")
        parser.add_argument("--model", default="fake")
        parser.add_argument(
            "--healthy", action="store_true", help="health and models answer well in any case"
        )
        return cls(**vars(parser.parse_args()))


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The target's query."""
        return dict(parse_qsl(urlsplit(self.target).query))

    def header(self, name: str) -> str:
        """Return the first header of that name, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), "")


def read_request(stream: BinaryIO) -> Request | None:
    """Read a request; None when the client is gone."""
    line = stream.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers: list[tuple[str, str]] = []
    while text := stream.readline().decode("latin-1").strip():
        key, _, value = text.partition(":")
        headers.append((key, value.strip()))
    request = Request(line[0], line[1], headers, b"")
    if request.header("transfer-encoding"):
        body = b"".join(_read_chunks(stream))
    else:
        body = stream.read(int(request.header("content-length") or 0))
    return Request(line[0], line[1], headers, body)


def _read_chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := int(stream.readline().split(b";")[0], 16):
        yield stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass


class FakeEngine:
    """Serves connections, each in a thread of its own."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._started = time.monotonic()
        self._served = 0

    def serve(self) -> None:
        """Serve for ever."""
        host = self._options.host
        with socket.create_server((host, self._options.port), backlog=1024) as server:
            say(f"listening on http://{host}:{server.getsockname()[1]}")
            while True:
                connection, _ = server.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while request := read_request(stream):
                    self._answer(connection, request)
                    if request.header("connection").lower() == "close":
                        break
            except OSError:
                return  # the client left

    def _answer(self, connection: socket.socket, request: Request) -> None:
        about_itself = request.path in ("/health", "/v1/models")
        behaviour = self._options.behaviour
        if about_itself and self._options.healthy:
            behaviour = Behaviour.OK
        if behaviour is Behaviour.HANG:
            threading.Event().wait()
        if behaviour is Behaviour.GARBAGE:
            connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            connection.shutdown(socket.SHUT_RDWR)
        elif self._loading(behaviour):
            error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
            send_json(connection, {"error": error}, HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._route(connection, request)
            self._count(about_itself=about_itself)

    def _loading(self, behaviour: Behaviour) -> bool:
        if behaviour is Behaviour.SLOW_LOAD:
            return time.monotonic() < self._started + self._options.seconds
        return behaviour is Behaviour.NEVER_READY

    def _count(self, *, about_itself: bool) -> None:
        self._served += not about_itself
        if self._options.behaviour is Behaviour.CRASH_AFTER and self._served >= self._options.requests:
            crash(f"served {self._served} requests, cannot go on")

    def _route(self, connection: socket.socket, request: Request) -> None:
        match request.path.strip("/").split("/"):
            case ["health"]:
                send_json(connection, {"status": "ok"})
            case ["v1", "models"]:
                model = {"id": self._options.model, "object": "model", "owned_by": "fake"}
                send_json(connection, {"object": "list", "data": [model]})
            case ["v1", "chat", "completions"]:
                self._chat(connection, request)
            case ["echo", *_]:
                send_json(connection, echo(request))
            case ["status", code]:
                send_json(connection, {"status": int(code)}, HTTPStatus(int(code)))
            case ["bytes", count]:
                send(connection, b"x" * int(count), "application/octet-stream")
            case ["stream"]:
                size, delay = int(request.query.get("size", 10)), float(request.query.get("delay", 0.0))
                chunks = [b"x" * size] * int(request.query.get("chunks", 8))
                self._stream(connection, chunks, "application/octet-stream", delay)
            case _:
                send_json(connection, {"error": {"message": "File Not Found"}}, HTTPStatus.NOT_FOUND)

    def _chat(self, connection: socket.socket, request: Request) -> None:
        words = [f"word-{number} " for number in range(1, self._options.words + 1)]
        if json.loads(request.body or b"{}").get("stream"):
            events = [chat_event({"content": word}) for word in words]
            events += [chat_event({}, finish_reason="stop"), b"data: [DONE]\n\n"]
            self._stream(connection, events, "text/event-stream", self._options.delay)
        else:
            message = {"role": "assistant", "content": "".join(words).strip()}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            send_json(connection, {"object": "chat.completion", "choices": [choice]})

    def _stream(self, connection: socket.socket, chunks: list[bytes], kind: str, delay: float) -> None:
        """Send a chunked response, or the half of it."""
        connection.sendall(head(HTTPStatus.OK, kind, "Transfer-Encoding: chunked"))
        for number, chunk in enumerate(chunks):
            if number == len(chunks) // 2:
                self._fail_mid_stream()
            if number and delay:
                time.sleep(delay)
            connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        connection.sendall(b"0\r\n\r\n")

    def _fail_mid_stream(self) -> None:
        if self._options.behaviour is Behaviour.DIE_MID_STREAM:
            crash("the GPU has fallen off the bus")
        if self._options.behaviour is Behaviour.STALL:
            threading.Event().wait()


def chat_event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """Return a server-sent event with the next piece of a chat answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: %b\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode()


def echo(request: Request) -> dict[str, object]:
    """Return the request, for tests that want to see what arrived."""
    return {
        "method": request.method,
        "path": request.target,
        "headers": request.headers,
        "body": request.body.decode("latin-1"),
    }


def head(status: HTTPStatus, kind: str, framing: str) -> bytes:
    """Return the head of a response."""
    return f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n".encode()


def send(
    connection: socket.socket, body: bytes, kind: str = "text/plain", status: HTTPStatus = HTTPStatus.OK
) -> None:
    """Send a response with a Content-Length."""
    connection.sendall(head(status, kind, f"Content-Length: {len(body)}") + body)


def send_json(connection: socket.socket, payload: object, status: HTTPStatus = HTTPStatus.OK) -> None:
    """Send a JSON response."""
    send(connection, json.dumps(payload).encode(), "application/json", status)


def say(line: str) -> None:
    """Print a line of log, at once."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def crash(reason: str) -> None:
    """End the process as a crash does."""
    say(f"fatal: {reason}")
    os._exit(3)


def flood() -> None:
    """Print for ever."""
    block = "".join(f"line {number} of a flood that does not end\n" for number in range(200)).encode()
    while True:
        os.write(sys.stdout.fileno(), block)


def fork_stubborn_helper() -> None:
    """Fork a process that does not end when asked to."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    say(f"helper {pid}")


def main() -> None:
    """Misbehave as told."""
    options = Options.parse()
    match options.behaviour:
        case Behaviour.IGNORE_SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case Behaviour.EXIT_AT_ONCE:
            say("error: failed to load model: out of memory")
            crash("cannot go on")
        case Behaviour.CHILDREN:
            fork_stubborn_helper()
            fork_stubborn_helper()
        case Behaviour.FLOOD_LOG:
            threading.Thread(target=flood, daemon=True).start()
    FakeEngine(options).serve()


if __name__ == "__main__":
    main()
