"""The rules of HTTP/1.1 that both sides of the data plane share, as data and pure functions."""

import asyncio
import re
import select
import socket
import struct
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

type Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that belong to one connection and are never forwarded (RFC 9110 section 7.6.1)."""

BODILESS = frozenset((*range(200), 204, 304))
"""Statuses whose responses have no body (RFC 9112 section 6.3)."""

BUSY = frozenset({429, 503})
"""Statuses by which a backend says that it has no room for a request now, and has not begun with it."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Tells a client that waits with its body to send it (RFC 9110 section 10.1.1)."""

_NOT_NOMINABLE = frozenset(
    {b"close", b"keep-alive", b"upgrade", b"content-length", b"transfer-encoding", b"host"}
)

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_DOT_SEGMENT = re.compile(rb"[/\\]\.\.(?=[/\\;?#\0]|\Z)")
_MAX_ENCODINGS = 3
"""How many times a path may be percent-encoded, since each server on the way may decode it once."""

_CORS = re.compile(rb"^access-control-[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)


def tokens(value: bytes) -> list[bytes]:
    """Split a comma-separated header value into lower-case tokens.

    >>> tokens(b"Keep-Alive, X-Foo,")
    [b'keep-alive', b'x-foo']
    """
    return [token for part in value.split(b",") if (token := part.strip().lower())]


def nominated(value: bytes) -> list[bytes]:
    """Return the header names that a Connection value makes hop-by-hop (RFC 9110 section 7.6.1).

    Framing headers cannot be nominated away: that would let a client hide where its message ends.

    >>> nominated(b"close, X-Secret, Content-Length")
    [b'x-secret']
    """
    return [token for token in tokens(value) if token not in _NOT_NOMINABLE]


def without_nominated(headers: list[Header]) -> list[Header] | None:
    """Return the headers without Connection and those it names; None when it names none.

    >>> without_nominated([(b"Connection", b"X-A"), (b"x-a", b"1"), (b"connection", b"close"), (b"b", b"2")])
    [(b'b', b'2')]
    >>> without_nominated([(b"Connection", b"close"), (b"b", b"2")])
    """
    values = [value for name, value in headers if name.lower() == b"connection"]
    dropped = {token for value in values for token in nominated(value)}
    if not dropped:
        return None
    dropped.add(b"connection")
    return [header for header in headers if header[0].lower() not in dropped]


def origin_form(target: bytes) -> bytes:
    """Return path and query of a request target, also of one in absolute form (RFC 9112 section 3.2.2).

    >>> origin_form(b"/v1?x=1"), origin_form(b"http://host:80/v1?x=1"), origin_form(b"http://host")
    (b'/v1?x=1', b'/v1?x=1', b'/')
    """
    if target.startswith(b"/"):
        return target
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return target
    start = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=-1)
    if start < 0:
        return b"/"
    return rest[start:] if rest[start : start + 1] == b"/" else b"/" + rest[start:]


def leads_up(target: bytes) -> bool:
    r"""Return whether a path has a segment `..` (RFC 3986 section 3.3), plain or percent-encoded.

    >>> [leads_up(b"/a" + rest) for rest in (b"/../b", b"/%2e%2E", b"/..%2fb", b"/%252e./b", b"\\..")]
    [True, True, True, True, True]
    >>> [leads_up(b"/a" + rest) for rest in (b"/..b", b"/.well-known", b"/b?x=/../", b"/b%2e")]
    [False, False, False, False]
    """
    path = target.partition(b"?")[0]
    for _ in range(_MAX_ENCODINGS):
        if _DOT_SEGMENT.search(path):
            return True
        if b"%" not in path:
            return False
        path = unquote_to_bytes(path)
    return _DOT_SEGMENT.search(path) is not None


def without_cors(head: list[bytes]) -> bytes:
    r"""Return the head of a response without what its backend says of other origins.

    >>> without_cors([b"HTTP/1.1 200 OK\r\n", b"Access-Control-Max-Age", b": ", b"1", b"\r\n", b"a: b\r\n"])
    b'HTTP/1.1 200 OK\r\na: b\r\n'
    """
    return _CORS.sub(b"", b"".join(head))


def status_line(status: int) -> bytes:
    """Return the first line of a response; without a reason where the status has none.

    >>> status_line(502), status_line(520)
    (b'HTTP/1.1 502 Bad Gateway', b'HTTP/1.1 520 ')
    """
    return b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b""))


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that the other side sees an error, not an end; what is unsent is dropped."""
    endpoint = transport.get_extra_info("socket")
    if endpoint is not None:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def has_left(transport: asyncio.Transport) -> bool:
    """Tell whether the other side has ended a connection that is not being read, so that no loop notices."""
    endpoint = transport.get_extra_info("socket")
    if endpoint is None or transport.is_closing():
        return False
    ended = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a reset is seen
    poll = select.poll()
    poll.register(endpoint.fileno(), ended)
    return any(events & (ended | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
