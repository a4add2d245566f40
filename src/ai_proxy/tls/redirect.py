"""The plain HTTP listener beside TLS: sends clients on to https, and answers an authority's challenges."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

CHALLENGE_PATH = "/.well-known/acme-challenge/"
"""Where an authority looks for the answer to a challenge of type HTTP-01 (RFC 8555, section 8.3)."""

MAX_HEAD = 8 * 1024
MAX_CONNECTIONS = 256
HEAD_TIMEOUT = 10.0
"""Seconds from the connection to the end of the head."""
LINGER = 1.0
"""Seconds for the client to take its answer: closing at once, with bytes of its unread, would destroy it."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_AUTHORITY = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response without a body worth the name."""

    status: HTTPStatus
    location: str = ""
    body: bytes = b""

    def encode(self, *, head_only: bool) -> bytes:
        """Return its bytes."""
        body = self.body or f"{self.status.phrase}\n".encode()
        kind = "application/octet-stream" if self.body else "text/plain"
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            *([f"Location: {self.location}"] if self.location else []),
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        return "\r\n".join((*lines, "", "")).encode() + (b"" if head_only else body)


@dataclass(frozen=True, slots=True)
class Site:
    """What the listener knows.

    Attributes:
        https_port: Where clients are sent.
        challenges: Answers to an authority's challenges, by token.
        head_timeout: Seconds from the connection to the end of the head.
        connections: Those that are open.
    """

    https_port: int
    challenges: Mapping[str, bytes] = field(default_factory=dict)
    head_timeout: float = HEAD_TIMEOUT
    connections: set["Connection"] = field(default_factory=set)


def answer(head: bytes, https_port: int, challenges: Mapping[str, bytes]) -> bytes:
    r"""Answer a request.

    Args:
        head: Request line and headers, without the empty line after them.
        https_port: Where clients are sent.
        challenges: Answers to an authority's challenges, by token.

    >>> answer(b"GET /x?y=1 HTTP/1.1\r\nHost: gpu.example.com:80", 443, {}).splitlines()[:2]
    [b'HTTP/1.1 308 Permanent Redirect', b'Location: https://gpu.example.com/x?y=1']
    """
    request_line, *lines = head.split(b"\r\n")
    parsed = _REQUEST_LINE.fullmatch(request_line)
    headers = [_HEADER.fullmatch(line) for line in lines]
    if parsed is None or None in headers:
        return Answer(HTTPStatus.BAD_REQUEST).encode(head_only=False)
    method, target = parsed[1].decode(), parsed[2].decode()
    hosts = [header[2].decode("latin-1") for header in headers if header and header[1].lower() == b"host"]
    return _answer(method, target, hosts, https_port, challenges).encode(head_only=method == "HEAD")


def _answer(
    method: str, target: str, hosts: list[str], https_port: int, challenges: Mapping[str, bytes]
) -> Answer:
    absolute = re.fullmatch(r"https?://([^/?#]*)(.*)", target, re.IGNORECASE)
    if absolute:  # its authority counts, whatever the header says (RFC 9112, section 3.2.2)
        hosts, target = [absolute[1]], absolute[2] if absolute[2].startswith("/") else f"/{absolute[2]}"
    if len(hosts) != 1 or not target.startswith("/"):
        return Answer(HTTPStatus.BAD_REQUEST)
    if target.startswith(CHALLENGE_PATH):
        return _challenge(method, target.removeprefix(CHALLENGE_PATH), challenges)
    host = _AUTHORITY.fullmatch(hosts[0])
    if host is None:
        return Answer(HTTPStatus.BAD_REQUEST)
    port = "" if https_port == 443 else f":{https_port}"
    return Answer(HTTPStatus.PERMANENT_REDIRECT, f"https://{host[1]}{port}{target}")


def _challenge(method: str, token: str, challenges: Mapping[str, bytes]) -> Answer:
    if method not in ("GET", "HEAD"):
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED)
    found = challenges.get(token)
    return Answer(HTTPStatus.OK, body=found) if found else Answer(HTTPStatus.NOT_FOUND)


class Connection(asyncio.Protocol):
    """Reads one head, answers it, and closes."""

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, site: Site) -> None:
        self._site = site
        self._head = bytearray()
        self._answered = False

    def __repr__(self) -> str:
        return f"<redirect.Connection {'answered' if self._answered else 'reading'}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, unless too many do."""
        self._transport = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(self._site.head_timeout, self._give_up)
        if len(self._site.connections) < MAX_CONNECTIONS:
            self._site.connections.add(self)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Take more of the head; what follows it is of no interest."""
        if self._answered:
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n", max(0, len(self._head) - len(data) - 3))
        if max(end, len(self._head) if end < 0 else 0) > MAX_HEAD:
            self._reply(Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE).encode(head_only=False))
        elif end >= 0:
            self._reply(answer(bytes(self._head[:end]), self._site.https_port, self._site.challenges))

    def eof_received(self) -> bool:
        """Close: nobody has anything to say any more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is over either way
        """Forget the connection."""
        self._site.connections.discard(self)
        self._timer.cancel()

    def abort(self) -> None:
        """Cut the client off."""
        self._transport.abort()

    def _give_up(self) -> None:
        self._reply(Answer(HTTPStatus.REQUEST_TIMEOUT).encode(head_only=False))

    def _reply(self, response: bytes) -> None:
        self._answered = True
        self._head.clear()
        self._transport.write(response)
        self._transport.write_eof()
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(LINGER, self.abort)


@asynccontextmanager
async def serve_redirect(host: str, port: int, site: Site) -> AsyncIterator[int]:
    """Listen for plain HTTP; yields the port.

    Raises:
        OSError: The address cannot be had.
    """
    server = await asyncio.get_running_loop().create_server(lambda: Connection(site), host, port)
    try:
        bound: int = server.sockets[0].getsockname()[1]
        yield bound
    finally:
        server.close()
        for connection in tuple(site.connections):
            connection.abort()
