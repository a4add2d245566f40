"""Connections to backends: they parse the head of a response and pass its body on as it arrived."""

import asyncio
import os
import socket
from contextlib import suppress
from enum import IntEnum, auto
from typing import Protocol, cast

import httptools

from ai_proxy.core.service import Upstream
from ai_proxy.gateway.http.body import LAST_CHUNK, frame_chunk
from ai_proxy.gateway.http.head_cache import MAX_MISSES, CachedResponseHead
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.response import (
    AMBIGUOUS,
    STATUS_LINES,
    ends_in_surplus,
    filter_response,
    is_within_line,
    retry_after,
    skip_interim,
)
from ai_proxy.gateway.http.wire import BODILESS, BUSY, Header

MAX_RESPONSE_HEAD = 64 * 1024
"""Most bytes of a response's head, of the interim responses before it, and of the trailers at its end."""
LINE_FEED = 10
SLICE = 16 * 1024
"""Bytes of a body that are rewritten at a time: a flood of small events must not hold up other requests."""


class TrailersTooLargeError(Exception):
    """Stops the parser when a backend's trailers exceed their limit."""


class SurplusError(Exception):
    """Stops the parser when a backend goes on after the end of its response."""


class Framing(IntEnum):
    """What the next bytes from the backend are, and how their end is found (RFC 9112 section 6.3)."""

    HEAD = auto()
    LENGTH = auto()
    CHUNKED = auto()
    DECHUNKED = auto()
    """Chunks for an exchange that takes their content alone."""
    UNTIL_CLOSE = auto()
    TUNNEL = auto()


HEAD, LENGTH, CHUNKED, DECHUNKED, UNTIL_CLOSE, TUNNEL = Framing


class EndDetector(Protocol):
    """Detects whether a body is complete that ends with its connection."""

    def feed(self, data: bytes) -> None:
        """Take a piece of the body."""

    @property
    def is_complete(self) -> bool:
        """Whether the body is complete."""


class Receiver(Protocol):
    """The exchange that a connection carries, as the connection sees it.

    Attributes:
        request_done: Whether the request has been sent whole.
        content_only: Whether the exchange takes the body of a response without chunk framing.
    """

    request_done: bool
    content_only: bool

    @property
    def request(self) -> Request:
        """The head of the request."""

    def response_declined(self, retry_after: float) -> bool:
        """Return whether the request goes elsewhere, since this backend has no room for it.

        Args:
            retry_after: What the backend asks for, in seconds; 0 when it does not.
        """

    def response_until_close(self, headers: list[Header]) -> EndDetector | None:
        """Return a detector for a body that ends with the connection; None when its end cannot be detected.

        Args:
            headers: Of the response.
        """

    def response_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Take the head of the response in pieces (without the blank line) and the first of its body."""

    def response_body(self, data: bytes) -> None:
        """Take bytes of the body, framed for the client."""

    def response_done(self) -> None:
        """The response is complete."""

    def response_lost(self, detail: str, *, unanswered: bool) -> None:
        """The connection ended too early.

        Args:
            detail: How, in words.
            unanswered: Whether a reused connection brought nothing at all.
        """

    def response_invalid(self, detail: str) -> None:
        """What came is not a response that can be passed on."""

    def pause_request(self) -> None:
        """The backend does not keep up with the request's body."""

    def resume_request(self) -> None:
        """The backend keeps up again."""


class Keeper(Protocol):
    """The pool that a connection belongs to."""

    @property
    def upstream(self) -> Upstream:
        """Where its connections lead."""

    @property
    def is_own(self) -> bool:
        """Whether the upstream is the proxy's own management app."""

    def put(self, connection: "UpstreamConnection") -> None:
        """Keep a connection for the next request."""

    def discard(self, connection: "UpstreamConnection") -> None:
        """Forget a connection that has ended."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to a backend; carries one exchange at a time."""

    __slots__ = (
        "backlog",
        "cached",
        "draining",
        "end_detector",
        "exchange",
        "framing",
        "headers",
        "idle_since",
        "in_trailers",
        "interim",
        "keep_alive",
        "message_complete",
        "misses",
        "parser",
        "paused",
        "pool",
        "remaining",
        "silent",
        "surplus",
        "trailers",
        "transport",
        "unparsed",
        "uses",
    )

    def __init__(self, pool: Keeper) -> None:
        self.pool = pool
        self.transport: asyncio.Transport
        self.exchange: Receiver | None = None
        self.framing = HEAD
        self.end_detector: EndDetector | None = None  # of a body that ends with the connection
        self.parser: httptools.HttpResponseParser
        self.headers: list[Header] = []
        self.in_trailers = False  # whether the next header is a trailer
        self.trailers = 0  # bytes of them
        self.interim = 0  # bytes of interim responses before the response
        self.message_complete = False
        self.keep_alive = False
        self.surplus = False
        self.silent = True
        self.remaining = 0
        self.unparsed = b""
        self.uses = 0
        self.idle_since = 0
        self.paused = False
        self.backlog = b""  # what has been read, and is taken in the next turns of the loop
        self.draining: asyncio.Handle | None = None  # the next slice of it
        self.cached: CachedResponseHead | None = None
        self.misses = 0

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
        self.silent = True
        self.uses += 1
        self.transport.write(request)

    def abort(self) -> None:
        """Let go of the exchange and reset the connection, so that the engine stops working at once."""
        self.exchange = None
        self.transport.abort()

    def pause(self) -> None:
        """Stop reading until `resume`: the client does not keep up."""
        if not self.paused and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            if self.backlog:
                self._schedule_drain()
            elif not self.transport.is_closing():
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
        if exc is not None and self.exchange is not None and not self.exchange.request_done:
            self._receive_last_words(self.exchange)
        while self.backlog and self.exchange is not None:
            self._take_slice(self.exchange)
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self.pool.discard(self)
        elif self.framing is TUNNEL:
            exchange.response_done()
        elif (
            self.framing is UNTIL_CLOSE
            and exc is None
            and (self.end_detector is None or self.end_detector.is_complete)
        ):
            if not exchange.content_only:
                exchange.response_body(LAST_CHUNK)
            exchange.response_done()
        else:
            detail = f"connection lost ({exc})" if exc else "connection closed"
            exchange.response_lost(detail, unanswered=self.silent and self.uses > 1)

    def _receive_last_words(self, exchange: Receiver) -> None:
        """Read what a backend sent before it reset the connection under an upload: often, why.

        The loop saw the failed write first, and has given up reading; the socket is open until we return.
        """
        endpoint = self.transport.get_extra_info("socket")
        if endpoint is None or self.pool.upstream.tls or self.framing is TUNNEL:
            return
        with suppress(OSError), socket.socket(fileno=os.dup(endpoint.fileno())) as last:
            last.setblocking(False)
            while self.exchange is exchange and (data := last.recv(MAX_RESPONSE_HEAD)):
                self.data_received(data)

    def on_message_begin(self) -> None:
        """Refuse a second message: nobody asked for it."""
        if self.message_complete:
            raise SurplusError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; a trailer is passed on with the last chunk, and only counted."""
        if self.in_trailers:
            self.trailers += len(name) + len(value)
            if self.trailers > MAX_RESPONSE_HEAD:
                raise TrailersTooLargeError
        else:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note what the parser can tell only now."""
        self.in_trailers = True
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
        elif framing is LENGTH and not exchange.content_only:
            self._receive_length(exchange, data)
        elif framing is HEAD:
            self.silent = False
            if not self._repeats(exchange, data):
                self._receive_head(exchange, data)
        elif framing is TUNNEL:
            exchange.response_body(data)
        elif self.backlog or len(data) > SLICE:
            self._receive_in_slices(data)
        else:
            self._receive_content(exchange, data)

    def _receive_in_slices(self, data: bytes) -> None:
        """Take a slice now and the others in the next turns of the loop, before anything else is read."""
        begun = bool(self.backlog)
        self.backlog += data
        if self.framing is LENGTH and len(self.backlog) > self.remaining:
            self.keep_alive = False  # more comes than the response has
        if not begun:
            if not self.transport.is_closing():
                self.transport.pause_reading()
            self._drain_backlog()

    def _drain_backlog(self) -> None:
        """Take the next slice, unless the client does not keep up; then `resume` goes on."""
        self.draining = None
        exchange = self.exchange
        if not self.backlog or exchange is None or self.paused:
            return
        self._take_slice(exchange)
        if self.backlog:
            self._schedule_drain()
        elif not self.paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _schedule_drain(self) -> None:
        if self.draining is None:  # a second one would take two slices in one turn
            self.draining = asyncio.get_running_loop().call_soon(self._drain_backlog)

    def _take_slice(self, exchange: Receiver) -> None:
        data, self.backlog = self.backlog[:SLICE], self.backlog[SLICE:]
        self._receive_content(exchange, data)
        if self.exchange is not exchange:
            self.backlog = b""

    def _receive_content(self, exchange: Receiver, data: bytes) -> None:
        if self.framing is DECHUNKED:
            self._receive_dechunked(exchange, data)
        elif self.framing is LENGTH:
            self._receive_length(exchange, data)
        else:
            self._receive_until_close(exchange, data)

    def _receive_chunked(self, exchange: Receiver, data: bytes) -> None:
        try:
            if data[-1] == LINE_FEED or not is_within_line(data):
                self.parser.feed_data(data)
            else:  # a byte that content may have, and no line, in place of the last one
                self.parser.feed_data(memoryview(data)[:-1])
                self.parser.feed_data(b"\0")
        except httptools.HttpParserError as error:
            self._invalid(f"bad chunked body: {error}")
            return
        if not self.message_complete:
            exchange.response_body(data)
        elif ends_in_surplus(data):
            self._invalid("bytes after the end of the response")
        else:
            exchange.response_body(data)
            self._done(exchange)

    def _receive_dechunked(self, exchange: Receiver, data: bytes) -> None:
        self.trailers += len(data)
        if self.trailers > MAX_RESPONSE_HEAD + len(data):
            self._invalid("the trailers or chunk extensions of the response are too large")
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.message_complete:
                self._invalid(f"bad chunked body: {error}")
                return
            self.keep_alive = False  # the response is whole; what follows it is bad
        if self.backlog and self.message_complete:
            self.keep_alive = False
        if self.message_complete and self.exchange is exchange:
            self.parser = httptools.HttpResponseParser(self)
            self._done(exchange)

    def _receive_length(self, exchange: Receiver, data: bytes) -> None:
        remaining = self.remaining - len(data)
        if remaining < 0:
            data = data[: self.remaining]
            self.keep_alive = False
            remaining = 0
        self.remaining = remaining
        exchange.response_body(data)
        if not remaining:
            self.keep_alive = self.keep_alive and not self.backlog
            self.parser = httptools.HttpResponseParser(self)  # it was not shown the body, so it waits for it
            self._done(exchange)

    def _receive_until_close(self, exchange: Receiver, data: bytes) -> None:
        if self.end_detector is not None:
            self.end_detector.feed(data)
        exchange.response_body(data if exchange.content_only else frame_chunk(data))

    def _receive_head(self, exchange: Receiver, data: bytes) -> None:
        if self.unparsed:
            data = self.unparsed + data
            self.unparsed = b""
        end = data.find(b"\r\n\r\n")
        if data[9:10] == b"1":
            self.interim += len(data)
            data, end = skip_interim(data)
            self.interim -= len(data)
            if self.interim > MAX_RESPONSE_HEAD:
                self._invalid("too many interim responses")
                return
        if end < 0 or end > MAX_RESPONSE_HEAD or data[:7] != b"HTTP/1.":
            self._wait_for_head(data, end)
            return
        self.headers = []
        self.in_trailers = False
        self.trailers = self.interim = 0
        self.message_complete = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._switch_protocols(exchange, data, end + 4)
            return
        except httptools.HttpParserError as error:
            if not self.message_complete:
                self._invalid(f"the answer is not HTTP: {error}")
                return
            self.surplus = True
            self.keep_alive = False
        self._start_response(exchange, data, end + 4)

    def _repeats(self, exchange: Receiver, data: bytes) -> bool:
        """Pass on a response whose head is like the one before it on this connection; False for any other."""
        cached = self.cached
        if cached is None or self.unparsed or exchange.request.method == b"HEAD":
            return False
        found = cached.match(data)
        if found is None:
            return False
        head, body, missing = found
        self.keep_alive = True
        self.misses = 0
        self.framing = LENGTH
        self.remaining = missing
        exchange.response_head(cached.status, [head], body)
        if not missing:
            self._done(exchange)
        return True

    def _wait_for_head(self, data: bytes, end: int) -> None:
        """Keep the beginning of a head, if it can become one."""
        if not b"HTTP/1.".startswith(data[:7]):
            self._invalid("the answer is not HTTP")
        elif end > MAX_RESPONSE_HEAD or len(data) > MAX_RESPONSE_HEAD:
            self._invalid("response head too large")
        else:
            self.unparsed = data

    def _start_response(self, exchange: Receiver, data: bytes, body_start: int) -> None:
        """Choose the framing and pass on the head with as much of the body as came with it."""
        status = self.parser.get_status_code()
        if status in BUSY and exchange.response_declined(retry_after(self.headers)):
            self.abort()
            return
        if status not in STATUS_LINES:
            self._invalid(f"{status} is not an HTTP status")
            return
        head = [STATUS_LINES[status]]
        length, chunked = filter_response(self.headers, head, is_own=self.pool.is_own)
        body = data[body_start:]
        if length == AMBIGUOUS:
            self._invalid("the length of the response is ambiguous")
        elif status in BODILESS or exchange.request.method == b"HEAD":
            self._finish_without_body(exchange, status, head, body)
        elif chunked:
            self._start_chunked(exchange, status, head, body)
        elif length >= 0:
            self.framing = LENGTH
            if len(body) > length:
                body = body[:length]
                self.keep_alive = False
            elif self.keep_alive and status not in BUSY and self.misses < MAX_MISSES:
                self.misses += 1
                self.cached = CachedResponseHead(data[:body_start], status, b"".join(head))
            self.remaining = length - len(body)
            exchange.response_head(status, head, body)
            if not self.remaining:
                self._done(exchange)
        else:
            self._start_until_close(exchange, status, head, body)

    def _start_until_close(self, exchange: Receiver, status: int, head: list[bytes], body: bytes) -> None:
        """Pass on a body that ends with the connection.

        Where its end can be detected, it is framed in chunks, and an incomplete one gets no last chunk. Any
        other body ends the client's connection too.
        """
        self.framing = UNTIL_CLOSE
        self.keep_alive = False
        self.end_detector = exchange.response_until_close(self.headers)
        rest = b""
        if len(body) > SLICE:
            body, rest = body[:SLICE], body[SLICE:]
        if self.end_detector is not None:
            self.end_detector.feed(body)
        if not exchange.content_only:
            head.append(b"transfer-encoding: chunked\r\n")
            body = frame_chunk(body) if body else b""
        exchange.response_head(status, head, body)
        if rest and self.exchange is exchange:
            self.data_received(rest)

    def _start_chunked(self, exchange: Receiver, status: int, head: list[bytes], body: bytes) -> None:
        if exchange.content_only:
            self._start_dechunked(exchange, status, head, body)
            return
        if self.message_complete and (self.surplus or ends_in_surplus(body)):
            self._invalid("bytes after the end of the response")
            return
        self.framing = CHUNKED
        head.append(b"transfer-encoding: chunked\r\n")
        exchange.response_head(status, head, body)
        if self.message_complete:
            self._done(exchange)

    def _start_dechunked(self, exchange: Receiver, status: int, head: list[bytes], body: bytes) -> None:
        """Take the chunk framing off: for clients of HTTP/1.0, and where a body is rewritten.

        The connection's own parser has no `on_body`, which would cost every other response; and it has seen
        these bytes before. So a parser with one is shown them.
        """
        self.framing = DECHUNKED
        exchange.response_head(status, head, b"")
        self.message_complete = self.surplus = False
        self.parser = httptools.HttpResponseParser(_Dechunker(self))
        self.parser.feed_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        if self.exchange is exchange:
            self.data_received(body)

    def _finish_without_body(
        self, exchange: Receiver, status: int, head: list[bytes], surplus: bytes
    ) -> None:
        if status < 200:
            self._invalid(f"{status} is not the status of a final response")
            return
        if surplus:
            self.keep_alive = False
        if not self.message_complete:
            self.parser = httptools.HttpResponseParser(self)  # it expects the body that a HEAD has not
        exchange.response_head(status, head, b"")
        self._done(exchange)

    def _switch_protocols(self, exchange: Receiver, data: bytes, body_start: int) -> None:
        if not exchange.request.upgrade:
            self._invalid("the backend switched protocols unasked")
            return
        self.framing = TUNNEL
        head = [STATUS_LINES[101]]
        filter_response(self.headers, head, is_own=self.pool.is_own)
        protocol = next(value for name, value in self.headers if name.lower() == b"upgrade")
        head.append(b"connection: upgrade\r\nupgrade: %b\r\n" % protocol)
        exchange.response_head(101, head, data[body_start:])

    def _invalid(self, detail: str) -> None:
        exchange, self.exchange = self.exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.response_invalid(detail)

    def _done(self, exchange: Receiver) -> None:
        """Give the connection back before the exchange ends, so that the next request finds it."""
        self.exchange = None
        if self.paused:
            self.resume()
        if self.keep_alive and exchange.request_done:
            self.pool.put(self)
        else:
            self.transport.abort()  # a close would wait for a backend that does not read the rest
        exchange.response_done()


class _Dechunker:
    """Passes the content of chunks on to a connection's exchange."""

    def __init__(self, connection: UpstreamConnection) -> None:
        self._connection = connection

    def on_message_begin(self) -> None:
        """Refuse a second message: nobody asked for it."""
        if self._connection.message_complete:
            raise SurplusError

    def on_body(self, data: bytes) -> None:
        """Pass a piece on, unless the exchange has ended."""
        self._connection.trailers = 0
        exchange = self._connection.exchange
        if exchange is not None:
            exchange.response_body(data)

    def on_message_complete(self) -> None:
        """Note the end of the message."""
        self._connection.message_complete = True
