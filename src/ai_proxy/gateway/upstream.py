"""Connections to backends: they parse the head of a response and pass its body on as it arrived."""

import asyncio
import ssl
from enum import IntEnum, auto
from typing import Protocol, cast
from weakref import WeakValueDictionary

import httptools

from ai_proxy.core.errors import UpstreamConnectError, UpstreamTimeoutError
from ai_proxy.core.service import Upstream
from ai_proxy.gateway.wire import HOP_BY_HOP, Header, has_body, nominated

MAX_RESPONSE_HEAD = 64 * 1024
MAX_IDLE = 30.0
"""Seconds an unused connection is kept for the next request."""


_NOT_FORWARDED = HOP_BY_HOP | {b"x-request-id"}


class Framing(IntEnum):
    """How the end of the message being received is told (RFC 9112 section 6.3)."""

    HEAD = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    TUNNEL = auto()


HEAD, LENGTH, CHUNKED, UNTIL_CLOSE, TUNNEL = Framing


class Receiver(Protocol):
    """The exchange that a connection carries, as the connection sees it."""

    method: bytes
    is_http10: bool
    is_upgrade: bool
    request_done: bool

    def response_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Take the head of the response in pieces (without the blank line) and the first of its body."""

    def response_body(self, data: bytes) -> None:
        """Take bytes of the body, framed for the client."""

    def response_done(self) -> None:
        """The response is complete."""

    def response_lost(self, detail: str, *, stale: bool) -> None:
        """The connection ended too early; `stale` when it was a reused one that brought nothing at all."""

    def response_invalid(self, detail: str) -> None:
        """What came is not a response that can be passed on."""

    def pause_request(self) -> None:
        """The backend does not keep up with the request's body."""

    def resume_request(self) -> None:
        """It does again."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to a backend; carries one exchange at a time."""

    __slots__ = (
        "exchange",
        "framing",
        "head_complete",
        "headers",
        "idle_since",
        "keep_alive",
        "message_complete",
        "messages",
        "parser",
        "paused",
        "pool",
        "remaining",
        "transport",
        "unparsed",
        "uses",
    )

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.transport: asyncio.Transport
        self.exchange: Receiver | None = None
        self.framing = HEAD
        self.parser: httptools.HttpResponseParser
        self.headers: list[Header] = []
        self.head_complete = False
        self.message_complete = False
        self.messages = 0
        self.keep_alive = False
        self.remaining = 0
        self.unparsed = b""
        self.uses = 0
        self.idle_since = 0
        self.paused = False

    def __repr__(self) -> str:
        use = "idle" if self.exchange is None else self.framing.name.lower()
        return f"<UpstreamConnection [{self.pool.upstream.url}, {use}, use {self.uses}]>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Prepare for the first response."""
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpResponseParser(self)

    def send(self, exchange: Receiver, request: bytes) -> None:
        """Send a request, whole or its beginning, and take on its exchange."""
        self.exchange = exchange
        self.framing = HEAD
        self.headers = []
        self.head_complete = self.message_complete = False
        self.messages = 0
        self.uses += 1
        self.transport.write(request)

    def abort(self) -> None:
        """Let go of the exchange and reset the connection, so that the engine stops working at once."""
        self.exchange = None
        self.transport.abort()

    def pause(self) -> None:
        """Stop reading until `resume`: the client does not keep up."""
        if not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """The backend does not read what we send."""
        if self.exchange is not None:
            self.exchange.pause_request()

    def resume_writing(self) -> None:
        """The backend reads again."""
        if self.exchange is not None:
            self.exchange.resume_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange what that means for it."""
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self.pool.discard(self)
        elif self.framing is TUNNEL:
            exchange.response_done()
        elif self.framing is UNTIL_CLOSE and exc is None:
            if not exchange.is_http10:
                exchange.response_body(b"0\r\n\r\n")
            exchange.response_done()
        else:
            nothing_came = self.framing is HEAD and not self.unparsed
            exchange.response_lost(
                f"connection lost ({exc})" if exc else "connection closed",
                stale=nothing_came and self.uses > 1,
            )

    def on_message_begin(self) -> None:
        """Count messages: more than one after a request is surplus."""
        self.messages += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note what the parser can tell only now."""
        self.head_complete = True
        self.keep_alive = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """Note the end of the message."""
        self.message_complete = True

    def data_received(self, data: bytes) -> None:
        """Pass on what came, by the framing of the response."""
        exchange = self.exchange
        framing = self.framing
        if exchange is None:
            self.transport.abort()  # bytes nobody asked for: the next request must not see them
        elif framing is CHUNKED:
            self._receive_chunked(exchange, data)
        elif framing is LENGTH:
            self._receive_length(exchange, data)
        elif framing is HEAD:
            self._receive_head(exchange, data)
        elif framing is UNTIL_CLOSE and not exchange.is_http10:
            exchange.response_body(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            exchange.response_body(data)

    def _receive_chunked(self, exchange: Receiver, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._invalid(f"bad chunked body: {error}")
            return
        if not self.message_complete:
            exchange.response_body(data)
        elif self._has_surplus(data):
            self._invalid("bytes after the end of the response")
        else:
            exchange.response_body(data)
            self._done(exchange)

    def _has_surplus(self, data: bytes) -> bool:
        """Tell whether bytes follow the end of a chunked message that ended in `data`."""
        return self.messages != 1 or not data.endswith(b"\n") or data.endswith(b"\r\n\r\n\r\n")

    def _receive_length(self, exchange: Receiver, data: bytes) -> None:
        remaining = self.remaining - len(data)
        if remaining < 0:
            data = data[: self.remaining]
            self.keep_alive = False
            remaining = 0
        self.remaining = remaining
        exchange.response_body(data)
        if not remaining:
            self.parser = httptools.HttpResponseParser(self)  # it was not shown the body, so it waits for it
            self._done(exchange)

    def _receive_head(self, exchange: Receiver, data: bytes) -> None:
        if self.unparsed:
            data = self.unparsed + data
        end = data.find(b"\r\n\r\n")
        while end >= 0 and data[9:10] == b"1" and data[9:12] != b"101":
            data = data[end + 4 :]  # interim responses are between the backend and us
            end = data.find(b"\r\n\r\n")
        if end < 0:
            self.unparsed = data
            if len(data) > MAX_RESPONSE_HEAD:
                self._invalid("response head too large")
            elif not b"HTTP/1.".startswith(data[:7]):
                self._invalid("the answer is not HTTP")
            return
        self.unparsed = b""
        if data[9:12] == b"101":
            self._switch_protocols(exchange, data, end)
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not (self.head_complete and self.message_complete):
                self._invalid(f"the answer is not HTTP: {error}")
                return
            self.keep_alive = False
            self.messages = 2
        self._start_response(exchange, data, end + 4)

    def _start_response(self, exchange: Receiver, data: bytes, body_start: int) -> None:
        """Choose the framing and pass on the head with as much of the body as came with it."""
        status = self.parser.get_status_code()
        head = [b"HTTP/1.1", data[8 : data.find(b"\r\n") + 2]]
        length, chunked = filter_response(self.headers, head)
        body = data[body_start:]
        if length == AMBIGUOUS:
            self._invalid("the length of the response is ambiguous")
        elif exchange.method == b"HEAD" or not has_body(status):
            self._finish_without_body(exchange, status, head, body)
        elif chunked:
            self.framing = CHUNKED
            self._start_chunked(exchange, status, head, body)
        elif length >= 0:
            self.framing = LENGTH
            if len(body) > length:
                body = body[:length]
                self.keep_alive = False
            self.remaining = length - len(body)
            exchange.response_head(status, head, body)
            if not self.remaining:
                self._done(exchange)
        else:
            self._start_until_close(exchange, status, head, body)

    def _start_until_close(self, exchange: Receiver, status: int, head: list[bytes], body: bytes) -> None:
        self.framing = UNTIL_CLOSE
        self.keep_alive = False
        if not exchange.is_http10:
            head.append(b"transfer-encoding: chunked\r\n")
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        exchange.response_head(status, head, body)

    def _start_chunked(self, exchange: Receiver, status: int, head: list[bytes], body: bytes) -> None:
        if self.message_complete and self._has_surplus(body):
            self._invalid("bytes after the end of the response")
            return
        head.append(b"transfer-encoding: chunked\r\n")
        exchange.response_head(status, head, body)
        if self.message_complete:
            self._done(exchange)

    def _finish_without_body(
        self, exchange: Receiver, status: int, head: list[bytes], surplus: bytes
    ) -> None:
        if surplus:
            self.keep_alive = False
        if not self.message_complete:
            self.parser = httptools.HttpResponseParser(self)  # it expects the body that a HEAD has not
        exchange.response_head(status, head, b"")
        self._done(exchange)

    def _switch_protocols(self, exchange: Receiver, data: bytes, end: int) -> None:
        if not exchange.is_upgrade:
            self._invalid("the backend switched protocols unasked")
            return
        self.framing = TUNNEL
        exchange.response_head(101, [data[: end + 2]], data[end + 4 :])

    def _invalid(self, detail: str) -> None:
        exchange, self.exchange = self.exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.response_invalid(detail)

    def _done(self, exchange: Receiver) -> None:
        """Give the connection back before the exchange ends, so that the next request finds it."""
        self.exchange = None
        self.resume()
        if self.keep_alive and self.messages == 1 and exchange.request_done:
            self.pool.put(self)
        else:
            self.transport.close()
        exchange.response_done()


class DechunkingConnection(UpstreamConnection):
    """For a client of HTTP/1.0, which does not know chunks: takes them off."""

    __slots__ = ()

    def _done(self, exchange: Receiver) -> None:
        self.keep_alive = False  # the next client may want the chunks
        super()._done(exchange)

    def on_body(self, data: bytes) -> None:
        """Pass on the content of a chunk."""
        if self.framing is CHUNKED and self.exchange is not None:
            self.exchange.response_body(data)

    def _receive_chunked(self, exchange: Receiver, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._invalid(f"bad chunked body: {error}")
            return
        if self.message_complete:
            self._done(exchange)

    def _start_chunked(self, exchange: Receiver, status: int, head: list[bytes], body: bytes) -> None:
        exchange.response_head(status, head, b"")
        # The parser has seen these bytes while the framing was still unknown: show them to a fresh one.
        self.parser = httptools.HttpResponseParser(self)
        self.message_complete = False
        self.parser.feed_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        self._receive_chunked(exchange, body)


UNSTATED, AMBIGUOUS = -1, -2


def filter_response(headers: list[Header], lines: list[bytes]) -> tuple[int, bool]:
    """Add to `lines` what may be passed on (RFC 9110 section 7.6.1), without an X-Request-ID but ours.

    Returns:
        The stated length, UNSTATED or AMBIGUOUS; and whether the body is chunked.
    """
    length = UNSTATED
    chunked = False
    kept = len(lines)
    for name, value in headers:
        key = name.lower()
        if key == b"content-length":
            length = int(value) if value.isdigit() and length == UNSTATED else AMBIGUOUS
        elif key in _NOT_FORWARDED:
            if key == b"transfer-encoding":
                if chunked or value.strip().lower() != b"chunked":
                    length = AMBIGUOUS
                chunked = True
            elif key == b"connection" and (dropped := nominated(value)):
                del lines[kept:]
                rest = [h for h in headers if h[0].lower() not in dropped and h[0].lower() != b"connection"]
                return filter_response(rest, lines)
            continue
        lines += (name, b": ", value, b"\r\n")
    return (AMBIGUOUS if chunked and length != UNSTATED else length), chunked


class Pool:
    """Keep-alive connections to one upstream, the one used last first."""

    __slots__ = ("__weakref__", "base_path", "host_line", "idle", "sweeps", "tls", "upstream")

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.sweeps = 0
        self.host_line = b" HTTP/1.1\r\nhost: %b\r\n" % authority(upstream)
        self.base_path = upstream.base_path.encode()
        self.tls = ssl.create_default_context() if upstream.tls else None
        self.idle: dict[UpstreamConnection, None] = {}

    def __repr__(self) -> str:
        return f"<Pool [{self.upstream.url}, {len(self.idle)} idle]>"

    def take(self) -> UpstreamConnection | None:
        """Return a connection that is open as far as we know, or None."""
        idle = self.idle
        while idle:
            connection = idle.popitem()[0]
            if not connection.transport.is_closing():
                return connection
        return None

    def put(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request."""
        connection.idle_since = self.sweeps
        self.idle[connection] = None

    def discard(self, connection: UpstreamConnection) -> None:
        """Forget a connection that has ended."""
        self.idle.pop(connection, None)

    async def connect(self, limit: float, *, dechunk: bool = False) -> UpstreamConnection:
        """Open a new connection.

        Args:
            limit: Longest wait, in seconds; 0 for none.
            dechunk: Whether the client does not know chunked bodies.

        Raises:
            UpstreamConnectError: Refused, unreachable, or TLS failed.
            UpstreamTimeoutError: No answer in time.
        """
        kind = DechunkingConnection if dechunk else UpstreamConnection
        try:
            async with asyncio.timeout(limit or None):
                return await self._open(kind)
        except TimeoutError:
            raise UpstreamTimeoutError(
                f"{self.upstream.url} did not accept a connection within {limit:g} s"
            ) from None
        except (OSError, ssl.SSLError) as error:
            raise UpstreamConnectError(f"cannot connect to {self.upstream.url}: {error}") from error

    async def _open(self, kind: type[UpstreamConnection]) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        if self.upstream.unix_path is not None:
            _, connection = await loop.create_unix_connection(lambda: kind(self), self.upstream.unix_path)
        else:
            host, port = self.upstream.host, self.upstream.port
            _, connection = await loop.create_connection(lambda: kind(self), host, port, ssl=self.tls)
        return connection

    def sweep(self, keep: int) -> None:
        """Close the connections that nobody has used for `keep` sweeps; counting them saves reading a clock."""
        self.sweeps += 1
        for connection in [c for c in self.idle if c.idle_since <= self.sweeps - keep]:
            del self.idle[connection]
            connection.transport.close()


class Pools:
    """A pool per upstream, for as long as somebody refers to it."""

    def __init__(self) -> None:
        self._pools: WeakValueDictionary[Upstream, Pool] = WeakValueDictionary()

    def of(self, upstream: Upstream) -> Pool:
        """Return the pool of an upstream."""
        pool = self._pools.get(upstream)
        if pool is None:
            pool = self._pools[upstream] = Pool(upstream)
        return pool

    def sweep(self, keep: int) -> None:
        """Close every connection that nobody has used for `keep` sweeps."""
        for pool in list(self._pools.values()):
            pool.sweep(keep)


def authority(upstream: Upstream) -> bytes:
    """Return what to say in the Host header.

    >>> authority(Upstream("api.example.com", 443, tls=True)), authority(Upstream("::1", 8080))
    (b'api.example.com', b'[::1]:8080')
    """
    if upstream.unix_path is not None:
        return b"localhost"
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    default = 443 if upstream.tls else 80
    return host.encode() if upstream.port == default else f"{host}:{upstream.port}".encode()
