"""The client's side of the wire: reads requests off a connection and answers them in order."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import httptools

from ai_proxy.core.errors import (
    HeadTooLargeError,
    InvalidKeyError,
    MalformedRequestError,
    OverloadedError,
    ProxyError,
    RequestTimeoutError,
    UpstreamTimeoutError,
)
from ai_proxy.core.service import Outcome
from ai_proxy.gateway.counted import CountedExchange
from ai_proxy.gateway.entries import Entry, Front
from ai_proxy.gateway.exchange import READING, Exchange
from ai_proxy.gateway.guard import Guard
from ai_proxy.gateway.inference import ModelExchange
from ai_proxy.gateway.memo import MAX_MISSES, RequestMemo
from ai_proxy.gateway.multipart import is_multipart
from ai_proxy.gateway.preflight import PreflightExchange
from ai_proxy.gateway.request import Request, check_head
from ai_proxy.gateway.timeouts import Wait, Watch
from ai_proxy.gateway.upload import Upload
from ai_proxy.gateway.wire import CONTINUE, Header, has_left, reset

if TYPE_CHECKING:
    from ai_proxy.gateway.listener import Gateway

MAX_PIPELINED = 64
"""Requests read ahead of their turn; a client that sends more finds its connection closed after these."""
MAX_AHEAD = 64 * 1024
"""Bytes read behind a request that is being answered, before reading stops."""
MAX_TUNNEL_AHEAD = 64 * 1024
"""Bytes taken from a client before its tunnel stands."""


class PipelineFullError(Exception):
    """Stops the parser when a client has sent too many requests ahead."""


class ClientConnection(asyncio.Protocol):
    """One client connection: a queue of exchanges, the first of which is being answered."""

    __slots__ = (
        "ahead",
        "body_follows",
        "current",
        "divert",
        "fed",
        "front",
        "gateway",
        "guard",
        "headers",
        "heads",
        "in_head",
        "lingering",
        "max_head",
        "max_headers",
        "memo",
        "misses",
        "parser",
        "peer",
        "pending",
        "queued",
        "reading",
        "reading_paused",
        "replaying",
        "seen",
        "served",
        "target",
        "transport",
        "upload_paused",
        "watch",
        "write_paused",
    )

    def __init__(self, gateway: "Gateway", front: Front, guard: Guard | None = None) -> None:
        self.gateway = gateway
        self.front = front
        self.guard = guard or gateway.guard
        self.max_head = gateway.limits.max_head
        self.max_headers = gateway.limits.max_headers
        self.transport: asyncio.Transport
        self.peer = ""
        self.parser: httptools.HttpRequestParser
        self.target = b""
        self.headers: list[Header] = []
        self.fed = 0  # bytes since a message began or its body went on; 0 when the read says no more
        self.in_head = False
        self.reading: Exchange | None = None
        self.current: Exchange | None = None
        self.pending: deque[Exchange] = deque()
        self.queued = 0
        self.served = self.seen = 0
        self.divert: Callable[[bytes], None] | None = None  # who takes what comes, when it is not the parser
        self.lingering = False
        self.reading_paused = False
        self.upload_paused = False
        self.write_paused = False
        self.body_follows = False
        self.replaying = False
        self.ahead = b""
        self.memo: RequestMemo | None = None
        self.heads = 0  # seen in the read at hand
        self.misses = 0
        self.watch = Watch(gateway.now())

    def __repr__(self) -> str:
        return (
            f"<ClientConnection [{self.served} served, current: {self.current}, {len(self.pending)} pending]>"
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in, unless there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.parser = httptools.HttpRequestParser(self)
        if not self.gateway.enter(self):
            self._refuse(OverloadedError("the proxy has all the connections it may have", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Let go of everything that was being done for this client."""
        self.gateway.leave(self)
        self.divert = _discard
        self.pending.clear()
        if self.current is not None:
            self.current.client_gone()

    def pause_writing(self) -> None:
        """The client does not read: neither do we."""
        self.write_paused = True
        if self.current is not None and self.current.upstream is not None:
            self.current.upstream.pause()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.write_paused = False
        if self.current is not None and self.current.upstream is not None:
            self.current.upstream.resume()

    def data_received(self, data: bytes) -> None:
        """Parse what came, then do what can be done."""
        if self.divert is not None:
            self.divert(data)
            return
        midway = self.in_head or self.reading is not None
        alone = self.current is None and not midway
        if alone:
            memo = self.memo
            if (
                memo is not None
                and memo.stamp is self.gateway.stamp
                and (body := memo.match(data)) is not None
            ):
                self._repeat(memo, body)
                return
            self.heads = 0
        self.fed = self.fed + len(data) if midway else len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._malformed(error)
        if self.fed > self.max_head:
            self._limit_overhead()
        if alone and self.heads == 1 and self.misses < MAX_MISSES:
            self._learn(data)
        self._advance()
        if self.pending:
            self.queued += len(data)
            self._update_reading()

    def _repeat(self, memo: RequestMemo, body: bytes) -> None:
        """Take a request like the one before it on this connection."""
        self.misses = 0
        self.current = exchange = self._exchange(memo.request, memo.entry)
        if meters := memo.request.principal.meters:
            exchange.enter(meters, exchange.started)
        exchange.repeat(memo, body)

    def _exchange(self, request: Request, entry: Entry | None) -> Exchange:
        if entry is None:
            if request.preflight:
                return PreflightExchange(self, self.gateway, request)
            kind = CountedExchange if request.principal.counts_tokens else Exchange
            return kind(self, self.gateway, request)
        if request.is_json or not is_multipart(request.header(b"content-type")):
            return ModelExchange(self, self.gateway, request, entry)
        return Upload(self, self.gateway, request, entry)

    def _learn(self, data: bytes) -> None:
        """Remember a request that came whole and alone, in case it comes again."""
        exchange = self.current
        if exchange is None or not exchange.request_done or not exchange.is_plain():
            return
        head = data[: len(data) - exchange.received]
        if head.find(b"\r\n\r\n") == len(head) - 4:
            self.misses += 1
            gateway = self.gateway
            self.memo = RequestMemo(
                head,
                exchange.request,
                exchange.destination,
                exchange.entry if isinstance(exchange, ModelExchange) else None,
                exchange.path,
                gateway.stamp,
                min(gateway.limits.max_json_body, exchange.request.max_body or sys.maxsize),
            )

    def _limit_overhead(self) -> None:
        """Stop a head, or what surrounds the chunks of a body (extensions, trailers), that does not end."""
        limit = self.max_head
        if self.divert is not None:
            return
        if self.in_head:
            self._refuse(HeadTooLargeError(f"a request head may have {limit} bytes at most"))
        elif self.reading is not None:
            error = HeadTooLargeError(f"chunk extensions and trailers may have {limit} bytes at most")
            self.break_off(self.reading, error)

    def on_message_begin(self) -> None:
        """Begin a head."""
        if self.replaying:
            return
        if len(self.pending) >= MAX_PIPELINED:
            raise PipelineFullError
        self.in_head = True
        self.heads += 1
        self.target = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self.target = self.target + url if self.target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Make an exchange of the head."""
        if self.replaying:
            return
        self.in_head = False
        if not 0 < self.fed <= self.max_head or len(self.headers) > self.max_headers:
            check_head(self.target, self.headers, self.gateway.limits)
        parser = self.parser
        request = Request(parser.get_method(), self.target)
        version = parser.get_http_version()
        if version != "1.1":
            if version != "1.0":
                raise MalformedRequestError(f"HTTP/{version} is not spoken here, HTTP/1.1 is")
            request.is_http10 = request.close = True
        elif not parser.should_keep_alive():
            request.close = True
        may_upgrade = parser.should_upgrade()
        if may_upgrade and request.method == b"CONNECT":
            raise MalformedRequestError("CONNECT is for forward proxies; this is none")
        request.read(self.headers, may_upgrade=may_upgrade)
        self.body_follows = may_upgrade and request.has_body
        entry = self.front.entry(self.target) if request.method == b"POST" else None
        self.guard.inspect(request, self.headers, self.peer, self.front.scope(self.target))
        self.reading = exchange = self._exchange(request, entry)
        exchange.route()
        if self.current is None:
            self.current = exchange
        else:
            self._enqueue(exchange)

    def on_body(self, data: bytes) -> None:
        """Hand on a piece of the body."""
        self.fed = 0
        if self.reading is not None:
            self.reading.add_body(data)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self.fed = 0
        reading = self.reading
        if reading is not None and not self.body_follows:
            self.reading = None
            reading.end_body()

    def _enqueue(self, exchange: Exchange) -> None:
        if self.current is None:
            self.current = exchange
        else:
            self.pending.append(exchange)

    def _after_upgrade(self, rest: bytes) -> None:
        """Go on after a head that asked for another protocol.

        A protocol that is not tunnelled (h2c) is ignored, as RFC 9110 section 7.8 allows; the parser has
        stopped by then, so a fresh one is shown where in the message it stands.
        """
        last = self.pending[-1] if self.pending else self.current
        if last is not None and last.request.upgrade:
            self.divert = self._hold_for_tunnel
            self.ahead = rest
            return
        self.parser = httptools.HttpRequestParser(self)
        if self.body_follows and self.reading is not None:
            self.body_follows = False
            self.replaying = True
            self.parser.feed_data(self.reading.request.framing_only())
            self.replaying = False
        try:
            self.parser.feed_data(rest)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(rest[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._malformed(error)

    def _hold_for_tunnel(self, data: bytes) -> None:
        self.ahead += data
        if len(self.ahead) > MAX_TUNNEL_AHEAD:
            self.pause_request()

    def _malformed(self, error: Exception) -> None:
        """Answer what cannot be parsed, in its turn; nothing after it can be trusted."""
        self.divert = _discard
        self.in_head = False
        cause = error if isinstance(error, ProxyError) else error.__context__
        if isinstance(cause, PipelineFullError):
            self.pending[-1].close = True
            return
        if not isinstance(cause, ProxyError):
            if isinstance(error, httptools.HttpParserCallbackError):
                raise error
            cause = MalformedRequestError(f"not HTTP/1.1 as RFC 9112 has it: {error}")
        if self.reading is not None:
            self.break_off(self.reading, cause)
        else:
            self._refuse(cause)

    def break_off(self, reading: Exchange, error: ProxyError) -> None:
        """End an exchange whose request cannot be read to its end."""
        self.divert = _discard
        reading.close = True
        if reading.phase is READING:
            reading.error = error
        else:
            reading.fail(error)

    def _refuse(self, error: ProxyError) -> None:
        """Queue an answer to something that never became a request."""
        self.divert = _discard
        nothing = Request(b"", b"")
        nothing.close = True
        nothing.error = error
        self._enqueue(Exchange(self, self.gateway, nothing))
        self._advance()

    def _advance(self) -> None:
        """Begin every exchange whose turn has come."""
        while (exchange := self.current) is not None and exchange.phase is READING:
            if not exchange.is_ready:
                if exchange.wants_continue():
                    self.transport.write(CONTINUE)
                break
            meters = exchange.request.principal.meters
            if meters and not exchange.meters:
                exchange.enter(meters, self.gateway.now())
            exchange.begin()

    def exchange_done(self, exchange: Exchange) -> None:
        """Go on with the next exchange, or end the connection."""
        if exchange is not self.current:
            return
        self.served += 1
        self.current = None
        if exchange.close or (self.gateway.closing and not self.pending):
            self.pending.clear()
            self._end(exchange)
            return
        if self.pending:
            self.current = self.pending.popleft()
            if not self.pending:
                self.queued = 0
                self._update_reading()
            self._advance()
        elif self.reading_paused:
            self.resume_request()

    def _end(self, exchange: Exchange) -> None:
        """Close, but let a client that still sends read its answer first."""
        may_send = self.divert is not None or not exchange.request_done
        if not may_send or self.transport.is_closing():
            self.transport.close()
            return
        self.divert = _discard
        self.lingering = True
        self.queued = 0
        self.upload_paused = False
        self._update_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def truncate(self, exchange: Exchange) -> None:
        """End the connection so that the client can tell that the response is not whole."""
        self.divert = _discard
        if exchange.request.is_http10:
            reset(self.transport)  # a close would look like the end of the response
        else:
            self.transport.close()

    def open_tunnel(self, exchange: Exchange) -> None:
        """Pass bytes both ways from now on."""
        self.divert = exchange.upload
        self.resume_request()
        if self.ahead:
            exchange.upload(self.ahead)  # last, since it may pause the client again
            self.ahead = b""

    def pause_request(self) -> None:
        """Stop reading: the backend does not keep up."""
        self.upload_paused = True
        self._update_reading()

    def resume_request(self) -> None:
        """Read on."""
        self.upload_paused = False
        self._update_reading()

    def _update_reading(self) -> None:
        pause = self.upload_paused or self.queued > MAX_AHEAD
        if pause != self.reading_paused and not self.transport.is_closing():
            self.reading_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def sweep(self, now: float) -> None:
        """End a wait that has made no progress for too long, or that nobody waits for any more."""
        if self.memo is not None and self.served != self.seen:
            self.seen = self.served
            self.gateway.guard.seen(self.memo.request.principal)
        if self.reading_paused and has_left(self.transport):
            self.transport.abort()
        elif (overdue := self.watch.overdue(self, now)) is not None:
            self._expire(*overdue)

    def _expire(self, wait: Wait, limit: float) -> None:
        current = self.current
        if wait is Wait.HEAD:
            self._refuse(RequestTimeoutError(f"the request's headers did not arrive within {limit:g} s"))
        elif wait is Wait.BODY and current is not None:
            self.break_off(
                current, RequestTimeoutError(f"nothing of the request's body arrived for {limit:g} s")
            )
            self._advance()
        elif wait in (Wait.BACKEND, Wait.STREAM) and current is not None:
            current.fail(UpstreamTimeoutError(f"the backend sent nothing for {limit:g} s"), Outcome.TIMEOUT)
        elif wait is Wait.IDLE:
            self.transport.close()
        else:
            self.transport.abort()

    def expel(self) -> None:
        """End the requests of whose callers the gateway's guard no longer thinks well."""
        is_good, current = self.gateway.guard.is_good, self.current
        revoked = InvalidKeyError("the API key of this request has been revoked")
        for waiting in self.pending:
            if not is_good(waiting.request.principal):
                waiting.close = True
                waiting.error = revoked
        if current is not None and not is_good(current.request.principal):
            current.close = True
            current.fail(revoked)

    def close_when_done(self) -> None:
        """End the connection as soon as nothing is being answered on it."""
        if self.current is None:
            self.transport.close()


def _discard(_: bytes) -> None:
    """Take what a client still sends, and forget it."""
