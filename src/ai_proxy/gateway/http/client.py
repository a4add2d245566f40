"""The client's side of the wire: reads requests off a connection and has them answered in order."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum, auto
from typing import Any, Protocol, cast

import httptools
from loguru import logger

from ai_proxy.core.errors import (
    HeadTooLargeError,
    MalformedRequestError,
    OverloadedError,
    ProxyError,
    RequestTimeoutError,
    UpstreamTimeoutError,
)
from ai_proxy.core.settings import Limits
from ai_proxy.gateway.http.head_cache import MAX_MISSES, CachedRequestHead
from ai_proxy.gateway.http.request import Request, check_head, head_size, too_many_headers
from ai_proxy.gateway.http.timeouts import LINGER, Pending, Wait, Watch
from ai_proxy.gateway.http.wire import CONTINUE, Header, has_left, reset

MAX_PIPELINED = 64
"""Requests read ahead of their turn; a client that sends more finds its connection closed after these."""
MAX_AHEAD = 64 * 1024
"""Bytes read behind a request that is being answered, before reading stops."""
MAX_TUNNEL_AHEAD = 64 * 1024
"""Bytes taken from a client before its tunnel stands."""

RESERVE_TIMEOUT = 1.0
"""Seconds that a connection above `max_connections` has to send the head of its only request."""


class Reading(IntEnum):
    """What the next bytes from the client are."""

    IDLE = auto()
    """The beginning of a request, or nothing."""
    HEAD = auto()
    """The rest of a head."""
    BODY = auto()
    """The rest of a body."""
    SUSPENDED = auto()
    """A body that the parser has not begun, since its head asks for a protocol that is not spoken (h2c)."""
    HELD = auto()
    """Bytes of another protocol, for a tunnel that does not stand yet."""
    TUNNEL = auto()
    """Bytes of another protocol, for the backend."""
    DISCARDING = auto()
    """Nothing that can be trusted: what came before was malformed, refused or too late."""
    LINGERING = auto()
    """Nothing of interest: the last response is written, and the client is to read it before the end."""
    CLOSED = auto()
    """Nothing: the connection has ended."""


class ReadEvent(IntEnum):
    """What moves a connection from one of these states to the next."""

    MESSAGE_BEGUN = auto()
    HEAD_COMPLETE = auto()
    BODY_FOLLOWS_UPGRADE = auto()
    PARSER_RESTARTED = auto()
    MESSAGE_COMPLETE = auto()
    UPGRADE_ASKED = auto()
    SWITCHED = auto()
    REJECTED = auto()
    ANSWERED = auto()
    LOST = auto()


IDLE, HEAD, BODY, SUSPENDED, HELD, TUNNEL, DISCARDING, LINGERING, CLOSED = Reading
E = ReadEvent

READ_TRANSITIONS: dict[tuple[Reading, ReadEvent], Reading] = {
    (IDLE, E.MESSAGE_BEGUN): HEAD,
    (HEAD, E.HEAD_COMPLETE): BODY,
    (HEAD, E.BODY_FOLLOWS_UPGRADE): SUSPENDED,
    (SUSPENDED, E.PARSER_RESTARTED): BODY,
    (BODY, E.MESSAGE_COMPLETE): IDLE,
    (IDLE, E.UPGRADE_ASKED): HELD,
    (HELD, E.SWITCHED): TUNNEL,
    **{(state, E.REJECTED): DISCARDING for state in (IDLE, HEAD, BODY, SUSPENDED, HELD, TUNNEL)},
    (DISCARDING, E.REJECTED): DISCARDING,
    (LINGERING, E.REJECTED): LINGERING,
    (CLOSED, E.REJECTED): CLOSED,
    **{(state, E.ANSWERED): LINGERING for state in (BODY, SUSPENDED, HELD, TUNNEL, DISCARDING, LINGERING)},
    **{(state, E.LOST): CLOSED for state in Reading},
}
"""All that can happen to what a connection reads, as in h11's `_state.py`; anything else is a defect."""

PARSED = frozenset({IDLE, HEAD, BODY, SUSPENDED})
"""States in which the parser takes the bytes."""


class RequestHandler(Protocol):
    """One request being answered, as its connection sees it.

    Attributes:
        close: Whether the connection ends after its response.
        ends_by_closing: Whether its response ends only with the connection.
        received: Bytes of the body so far.
        request_done: Whether the request has arrived whole.
    """

    close: bool
    ends_by_closing: bool
    received: int
    request_done: bool

    @property
    def request(self) -> Request:
        """Its head."""

    @property
    def is_active(self) -> bool:
        """Whether its turn has come and it is being answered."""

    @property
    def is_ready(self) -> bool:
        """Whether enough of the request is here to begin."""

    @property
    def awaits_body(self) -> bool:
        """Whether nothing else is waited for before the rest of the body."""

    @property
    def is_cacheable(self) -> bool:
        """Whether its head may be kept, with what was decided about it."""

    @property
    def cacheable_body(self) -> int:
        """Most bytes of a body that may follow a kept head."""

    @property
    def plan(self) -> Any:
        """What was decided from the head."""

    def add_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def end_body(self) -> None:
        """The request has arrived whole."""

    def await_body(self) -> None:
        """Take the turn on the connection, while the body is still incomplete."""

    def forget(self) -> None:
        """Release what is held of a request that will never be served."""

    def begin_whole(self, body: bytes) -> None:
        """Its turn has come at once, with its whole body."""

    def begin(self) -> None:
        """Its turn has come."""

    def wants_continue(self) -> bool:
        """Return, once, whether the client waits for a 100 before it sends the body (RFC 9110 10.1.1)."""

    def break_off(self, error: ProxyError) -> None:
        """The request cannot be read to its end."""

    def time_out(self, error: ProxyError) -> None:
        """The backend has been silent for too long."""

    def send_tunnel(self, data: bytes) -> None:
        """Pass on what the client says in a tunnel."""

    def pause_response(self) -> None:
        """The client does not keep up."""

    def resume_response(self) -> None:
        """The client keeps up again."""

    def pending(self) -> Pending:
        """Return what it waits for, once the request is read."""

    def client_gone(self) -> None:
        """The client has left."""


class Held(Protocol):
    """Counts the bytes of requests that are in memory."""

    def take(self, client: str, count: int, /) -> None:
        """Count bytes that are to be held; raise an OverloadedError for too many."""

    def give_back(self, client: str, count: int, /) -> None:
        """Count bytes that are held no longer."""


class ServerState(Protocol):
    """What every connection of a server looks up.

    Attributes:
        limits: What one client may take.
        closing: Whether the server is shutting down.
        generation: Another object whenever something changes that decides what becomes of a head.
    """

    limits: Limits
    closing: bool
    generation: object

    @property
    def held(self) -> Held:
        """Bounds what all clients may take together."""

    def now(self) -> float:
        """Return monotonic seconds."""


class Connection(Protocol):
    """What a server counts: a client's connection, also while its TLS handshake is under way."""

    def abort(self) -> None:
        """Cut the client off."""

    def close_when_done(self) -> None:
        """End the connection as soon as nothing is being answered on it."""


class Server(Protocol):
    """The listener that accepted a connection."""

    @property
    def state(self) -> ServerState:
        """What its connections look up."""

    def handler(self, client: "ClientConnection", plan: Any, /) -> RequestHandler:
        """Return what answers a request."""

    def enter(self, connection: Connection) -> bool:
        """Count a connection; False when there are too many."""

    @property
    def is_reserve_full(self) -> bool:
        """Whether the connections above `max_connections` that may ask for health are used up as well."""

    def is_public(self, target: bytes) -> bool:
        """Return whether a target needs no key, and is answered above `max_connections` too."""

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""

    def plan(self, request: Request, headers: list[Header], peer: str) -> Any:
        """Decide, from its head, what becomes of a request."""

    def refusal(self, client: "ClientConnection", error: ProxyError, method: bytes) -> RequestHandler:
        """Return what answers something that never became a request."""


class ClientConnection(asyncio.Protocol):
    """One client connection: a queue of requests, the first of which is being answered.

    Two things happen at once: requests are read, in the state `reading`, and the first of them is answered.
    Reading may be ahead of answering (pipelining), and is paused when it gets too far ahead.

    Args:
        server: The listener that accepted it.
        handshake: What the connection was counted as until now; None for one without TLS.
    """

    __slots__ = (
        "_cached",
        "_fed",
        "_handshake",
        "_head_held",
        "_head_size",
        "_headers",
        "_heads",
        "_held_of",
        "_in_reserve",
        "_misses",
        "_open",
        "_parser",
        "_peer",
        "_queued",
        "_served_before",
        "_server",
        "_state",
        "_target",
        "_upload_paused",
        "_watch",
        "ahead",
        "current",
        "queue",
        "reading",
        "reading_paused",
        "served",
        "transport",
        "write_paused",
    )

    def __init__(self, server: Server, handshake: Connection | None = None) -> None:
        self.transport: asyncio.Transport
        self.reading = IDLE
        self.current: RequestHandler | None = None
        self.served = 0
        self.write_paused = False
        self._server = server
        self._handshake = handshake
        self._state = server.state
        self._peer = ""
        self._parser: httptools.HttpRequestParser
        self.queue: deque[RequestHandler] = deque()  # read ahead of their turn
        self._queued = 0  # bytes read while there was a queue
        self._open: RequestHandler | None = None  # whose body is being read
        self._target = b""
        self._headers: list[Header] = []
        self._fed = 0  # bytes since a message began or its body went on; 0 when the read says no more
        self._head_held = 0  # bytes of an unfinished head that are counted
        self._held_of = 0  # the number of that head in the read
        self._head_size = 0  # of the last head, where it is large
        self._heads = 0  # complete in the read at hand
        self._cached: CachedRequestHead[Any] | None = None
        self._misses = 0
        self._served_before = 0
        self._in_reserve = False
        self.reading_paused = False
        self._upload_paused = False
        self.ahead = b""  # of a tunnel
        self._watch = Watch(self._state.now())

    def __repr__(self) -> str:
        return (
            f"<ClientConnection [{self.reading.name.lower()}, {self.served} served, current: {self.current}, "
            f"{len(self.queue)} queued]>"
        )

    def _read(self, event: ReadEvent) -> None:
        """Move to the next state of reading. The only place where it is written."""
        self.reading = READ_TRANSITIONS[self.reading, event]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or refuse it when there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self._parser = httptools.HttpRequestParser(self)
        if self._handshake is not None:
            self._server.leave(self._handshake)
            self._handshake = None
        self._in_reserve = not self._server.enter(self)
        if self._in_reserve and self._server.is_reserve_full:
            self._refuse(_full())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Drop everything that was being done for this client."""
        self._server.leave(self)
        self._release_head()
        self._read(E.LOST)
        self._forget_queue()
        self._open = None  # it holds what has come of a body, and this connection
        if self.current is not None:
            self.current.client_gone()

    # Reading: bytes to heads, heads to handlers, bodies to their handlers.

    def data_received(self, data: bytes) -> None:
        """Take what came, by what it is; then begin what can be begun."""
        reading = self.reading
        if reading is IDLE and self.current is None:
            cached = self._cached
            if (
                cached is not None
                and cached.generation is self._state.generation
                and (body := cached.match(data)) is not None
            ):
                self._misses = 0
                self.current = handler = self._server.handler(self, cached.plan)
                handler.begin_whole(body)
                return
            self._heads = self._fed = 0
            self._parse(data)
            if self._heads == 1 and self._misses < MAX_MISSES:
                self._cache_head(data)
        elif reading in PARSED:
            if reading is IDLE:
                self._fed = 0
            self._parse(data)
            if reading is HEAD and self.reading is not HEAD:
                self._release_head()
        elif reading is TUNNEL:
            if self.current is not None:
                self.current.send_tunnel(data)
            return
        elif reading is HELD:
            self.ahead += data
            if len(self.ahead) > MAX_TUNNEL_AHEAD:
                self.pause_request()
            return
        else:
            return
        self._advance()
        if self.queue:
            self._queued += len(data)
            self._update_reading()

    def _parse(self, data: bytes) -> None:
        """Show bytes to the parser, which calls the methods `on_...`."""
        self._fed += len(data)
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                self._reject_malformed(error)
                break
            else:
                break
            if not self._goes_on_after_upgrade(data):
                break
        if self._fed > self._state.limits.max_head:
            self._limit_overhead()
        elif self.reading is HEAD:
            if len(self._headers) > self._state.limits.max_headers:
                self._reject_malformed(too_many_headers(self._state.limits))
            else:
                self._hold_head(len(data))

    def _hold_head(self, count: int) -> None:
        """Count what a read left of a head that has not ended: many clients may leave theirs so."""
        if self._held_of != self._heads:
            self._release_head()
            self._held_of = self._heads
        try:
            self._state.held.take(self._peer, count)
        except OverloadedError as error:
            self._refuse(error)
        else:
            self._head_held += count

    def _release_head(self) -> None:
        if self._head_held:
            self._state.held.give_back(self._peer, self._head_held)
            self._head_held = 0

    def on_message_begin(self) -> None:
        """Begin a head."""
        if self.reading is not IDLE:
            if self.reading is SUSPENDED:
                return
            raise _StopParsingError  # the end of the body before it was refused
        if len(self.queue) >= MAX_PIPELINED:
            raise _PipelineFullError
        self._read(E.MESSAGE_BEGUN)
        self._heads += 1
        self._target = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self._target = self._target + url if self._target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Make a request of the head, have it planned, and give it its place in the queue."""
        if self.reading is SUSPENDED:
            return
        limits, headers, parser = self._state.limits, self._headers, self._parser
        if not 0 < self._fed <= limits.max_head or len(headers) > limits.max_headers:
            check_head(self._target, headers, limits)
        self._head_size = head_size(self._target, headers) if self._fed > limits.max_head // 2 else 0
        request = Request(parser.get_method(), self._target)
        version = parser.get_http_version()
        if version != "1.1":
            if version != "1.0":
                raise MalformedRequestError(f"HTTP/{version} is not supported; use HTTP/1.1")
            request.is_http10 = request.close = True
        elif not parser.should_keep_alive():
            request.close = True
        may_upgrade = parser.should_upgrade()
        if may_upgrade and request.method == b"CONNECT":
            raise MalformedRequestError("CONNECT is for forward proxies, and this is a reverse proxy")
        request.read(headers, may_upgrade=may_upgrade)
        body_is_unparsed = may_upgrade and request.has_body
        if self._in_reserve:
            request.close = True
            if not self._server.is_public(self._target):
                raise _full()
        self._read(E.BODY_FOLLOWS_UPGRADE if body_is_unparsed else E.HEAD_COMPLETE)
        self._open = handler = self._server.handler(self, self._server.plan(request, headers, self._peer))
        self._enqueue(handler)

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body on."""
        self._fed = 0
        if self._open is not None:
            self._open.add_body(data)
            if self.reading is not BODY:
                raise _StopParsingError

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self._fed = 0
        if self.reading is BODY:
            handler, self._open = self._open, None
            self._read(E.MESSAGE_COMPLETE)
            if handler is not None:
                handler.end_body()

    def _goes_on_after_upgrade(self, rest: bytes) -> bool:
        """Return whether the rest is for the parser, after a head that asked for another protocol.

        A protocol that is not tunnelled (h2c) is ignored, as RFC 9110 section 7.8 allows. The parser has
        stopped by then, so a fresh one takes its place, and is shown how the body is framed.
        """
        last = self.queue[-1] if self.queue else self.current
        if last is not None and last.request.upgrade:
            self._read(E.UPGRADE_ASKED)
            self.ahead = rest
            return False
        self._parser = httptools.HttpRequestParser(self)
        if self.reading is SUSPENDED and self._open is not None:
            self._parser.feed_data(self._open.request.framing_only())
            self._read(E.PARSER_RESTARTED)
        return True

    def _limit_overhead(self) -> None:
        """Stop a head, or what surrounds the chunks of a body (extensions, trailers), that does not end."""
        limit = self._state.limits.max_head
        if self.reading is HEAD:
            self._refuse(HeadTooLargeError(f"a request head may have {limit} bytes at most"))
        elif self._open is not None and self.reading in PARSED:
            if self._fed <= limit + self._head_size:
                return  # the head itself is part of what was fed
            error = HeadTooLargeError(f"chunk extensions and trailers may have {limit} bytes at most")
            self.discard()
            self._open.break_off(error)

    def _reject_malformed(self, error: Exception) -> None:
        """Answer what cannot be parsed, in its turn; nothing after it can be trusted."""
        cause = error if isinstance(error, ProxyError) else error.__context__
        if isinstance(cause, _StopParsingError):
            return
        if isinstance(cause, _PipelineFullError):
            self.discard()
            self.queue[-1].close = True
            return
        if not isinstance(cause, ProxyError):
            if isinstance(error, httptools.HttpParserCallbackError):
                logger.opt(exception=cause).error("a request failed before it was routed")
                cause = ProxyError("the proxy failed to handle this request; its log says why")
            else:
                cause = MalformedRequestError(f"the request is not HTTP/1.1 (RFC 9112): {error}")
        if self._open is not None:
            self.discard()
            self._open.break_off(cause)
        else:
            self._refuse(cause)

    def _refuse(self, error: ProxyError) -> None:
        """Queue the answer to what could not be read as a request; a HEAD gets no body."""
        is_head = self.reading is HEAD and self._parser.get_method() == b"HEAD"
        self.discard()
        self._enqueue(self._server.refusal(self, error, b"HEAD" if is_head else b""))
        self._advance()

    def discard(self) -> None:
        """Take nothing more from the client: what it sends cannot be trusted, or is not wanted."""
        self._headers = []  # they may take many times their bytes in memory until the answer has been read
        self._read(E.REJECTED)

    def _cache_head(self, data: bytes) -> None:
        """Keep the head of a request that came whole and alone, in case it comes again."""
        handler = self.current
        if handler is None or not handler.request_done or not handler.is_cacheable:
            return
        head = data[: len(data) - handler.received]
        if head.find(b"\r\n\r\n") == len(head) - 4:
            self._misses += 1
            self._cached = CachedRequestHead(
                head, handler.plan, self._state.generation, handler.cacheable_body
            )

    def repeated_plan(self) -> Any:
        """Return the plan of a cached head if requests were served since this was last asked; else None."""
        if self._cached is None or self.served == self._served_before:
            return None
        self._served_before = self.served
        return self._cached.plan

    # Answering: one request at a time, in their order.

    def _enqueue(self, handler: RequestHandler) -> None:
        if self.current is None:
            self.current = handler
        else:
            self.queue.append(handler)

    def _advance(self) -> None:
        """Begin every request whose turn has come."""
        while (handler := self.current) is not None and not handler.is_active:
            if not handler.is_ready:
                handler.await_body()
            if not handler.is_ready:
                if handler.wants_continue():
                    self.transport.write(CONTINUE)
                break
            handler.begin()

    def handler_done(self, handler: RequestHandler) -> None:
        """Go on with the next request, or end the connection."""
        if handler is not self.current:
            return
        self.served += 1
        self.current = None
        if self._upload_paused:
            self.resume_request()
        if handler.close or (self._state.closing and not self.queue):
            self._forget_queue()
            self._end(handler)
        elif self.queue:
            self.current = self.queue.popleft()
            if not self.queue:
                self._queued = 0
                self._update_reading()
            self._advance()

    def _forget_queue(self) -> None:
        for handler in self.queue:
            handler.forget()
        self.queue.clear()

    def _end(self, handler: RequestHandler) -> None:
        """Close, but let a client that still sends read its answer first."""
        still_sends = self.reading not in PARSED or not handler.request_done
        if not still_sends or self.reading is CLOSED or self.transport.is_closing():
            self.transport.close()
            return
        self._read(E.ANSWERED)
        self._open = None  # it holds what has come of a body
        self._queued = 0
        self._upload_paused = False
        self._update_reading()
        if self.transport.can_write_eof():
            with suppress(OSError):  # the client may have left already
                self.transport.write_eof()

    def truncate(self, handler: RequestHandler) -> None:
        """End the connection so that the client notices that the response is not whole."""
        self.discard()
        handler.close = True  # nothing may follow a response that is not whole
        if handler.ends_by_closing:
            reset(self.transport)  # a close would look like the end of the response
        else:
            self.transport.close()

    def open_tunnel(self, handler: RequestHandler) -> None:
        """Pass bytes both ways from now on."""
        self._read(E.SWITCHED)
        self.resume_request()
        if self.ahead:
            handler.send_tunnel(self.ahead)  # last, since it may pause the client again
            self.ahead = b""

    # Flow control: nobody sends faster than the other side reads.

    def pause_writing(self) -> None:
        """The client does not read: stop reading from the backend."""
        self.write_paused = True
        if self.current is not None:
            self.current.pause_response()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.write_paused = False
        if self.current is not None:
            self.current.resume_response()

    def pause_request(self) -> None:
        """Stop reading: the backend does not keep up."""
        self._upload_paused = True
        self._update_reading()

    def resume_request(self) -> None:
        """Read on."""
        self._upload_paused = False
        self._update_reading()

    def _update_reading(self) -> None:
        pause = self._upload_paused or self._queued > MAX_AHEAD
        if pause != self.reading_paused and not self.transport.is_closing():
            self.reading_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # Time limits, and ends from outside.

    def sweep(self, now: float) -> None:
        """End a wait that has made no progress for too long, or whose client has left."""
        if self.reading_paused and has_left(self.transport):
            self.transport.abort()
            return
        pending = self._pending()
        if self._watch.overdue(pending, self.served, now):
            self._expire(pending[0], pending[2])

    def _pending(self) -> Pending:
        """Return what the connection waits for."""
        limits, transport = self._state.limits, self.transport
        if self.reading is LINGERING:
            return Wait.LINGER, transport.get_write_buffer_size(), LINGER
        if self.write_paused or transport.is_closing():
            return Wait.READER, transport.get_write_buffer_size(), limits.write_timeout
        current = self.current
        if current is None:
            if self._in_reserve:
                return Wait.HEAD, 0, RESERVE_TIMEOUT
            if self.reading is HEAD:
                return Wait.HEAD, 0, limits.head_timeout
            return Wait.IDLE, 0, limits.keep_alive_timeout
        if self._open is current and not self.reading_paused and current.awaits_body:
            return Wait.BODY, current.received, limits.body_timeout
        return current.pending()

    def _expire(self, wait: Wait, limit: float) -> None:
        current = self.current
        if wait is Wait.HEAD:
            self._refuse(RequestTimeoutError(f"the request's headers did not arrive within {limit:g} s"))
        elif wait is Wait.BODY and current is not None:
            self.discard()
            current.break_off(RequestTimeoutError(f"nothing of the request's body arrived for {limit:g} s"))
            self._advance()
        elif wait in (Wait.BACKEND, Wait.STREAM) and current is not None:
            current.time_out(UpstreamTimeoutError(f"the backend sent nothing for {limit:g} s"))
        elif wait is Wait.IDLE:
            self.transport.close()
        else:
            self.transport.abort()

    def break_off(self, is_unwanted: Callable[[RequestHandler], bool], error: ProxyError) -> None:
        """End every request under way that is not wanted any more."""
        for handler in (self.current, *self.queue):
            if handler is not None and is_unwanted(handler):
                handler.break_off(error)
        self._advance()

    def abort(self) -> None:
        """Cut the client off."""
        self.transport.abort()

    def close_when_done(self) -> None:
        """End the connection as soon as nothing is being answered on it."""
        if self.current is None:
            self.transport.close()


def _full() -> OverloadedError:
    return OverloadedError(
        "the proxy has reached its limit of connections; try again, or raise server.limits.max_connections",
        retry_after=1,
    )


class _PipelineFullError(Exception):
    """Stops the parser when a client has sent too many requests ahead."""


class _StopParsingError(Exception):
    """Stops the parser when the body at hand is not wanted any more."""


def diagram() -> str:
    """Draw the table as a Mermaid state diagram, for the documentation."""
    lines = [
        f"    {source.name.lower()} --> {target.name.lower()}: {event.name.lower()}"
        for (source, event), target in READ_TRANSITIONS.items()
        if source is not target and event is not E.LOST
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> idle", *lines, "    lingering --> closed: lost"])
