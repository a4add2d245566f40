"""One request and its response on the wire: route, admit, forward, account."""

import asyncio
from enum import IntEnum, auto
from typing import TYPE_CHECKING

from ai_proxy.core.errors import (
    BodyTooLargeError,
    ProxyError,
    RateLimitedError,
    UnknownPathError,
    UpstreamClosedError,
    UpstreamInvalidError,
)
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import Lease, Outcome
from ai_proxy.gateway.entries import dialect_of
from ai_proxy.gateway.memo import RequestMemo
from ai_proxy.gateway.pool import Pool
from ai_proxy.gateway.request import Request
from ai_proxy.gateway.respond import JSON, problem, refusal
from ai_proxy.gateway.route import Destination
from ai_proxy.gateway.upstream import UpstreamConnection
from ai_proxy.gateway.wire import BUSY, CLIENT, CONTINUE, PRINCIPAL, without_cors
from ai_proxy.platform.tasks import spawn
from ai_proxy.security.limiter import Meters, enter, leave, rate_limit_headers

if TYPE_CHECKING:
    from ai_proxy.gateway.connection import ClientConnection
    from ai_proxy.gateway.listener import Gateway

CLIENT_GONE = 499
BROKEN_OFF = 599
SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""May be sent again although the backend may have acted on them (RFC 9110 section 9.2.1)."""
SMALL_BODY = 64 * 1024
"""A rejected request's body up to this size is read to its end, so that the connection can go on."""
IN_CONFIGURATION = "server.limits in the configuration"
STREAM_AHEAD = 256 * 1024
"""Bytes of a streamed body that are held while there is no connection to send them on."""


class Phase(IntEnum):
    """How far an exchange has come."""

    READING = auto()
    ADMITTING = auto()
    FORWARDING = auto()
    RESPONDING = auto()
    DONE = auto()


READING, ADMITTING, FORWARDING, RESPONDING, DONE = Phase


class Exchange:
    """One request and its response.

    The client connection feeds it the request and tells it when its turn to answer has come; the upstream
    connection feeds it the response. Whatever happens, it ends in `_finish`, once.
    """

    __slots__ = (
        "body",
        "client",
        "close",
        "destination",
        "error",
        "first_byte",
        "gateway",
        "id",
        "lease",
        "meters",
        "path",
        "phase",
        "received",
        "request",
        "request_done",
        "sent",
        "started",
        "status",
        "streamed",
        "task",
        "unframed",
        "upstream",
    )

    def __init__(self, client: "ClientConnection", gateway: "Gateway", request: Request) -> None:
        self.client = client
        self.gateway = gateway
        self.request = request
        self.started = gateway.now()
        self.phase = READING
        self.close = request.close
        self.error = request.error
        self.id = request.request_id
        self.destination: Destination | None = None
        self.path = b""
        self.body: bytes | bytearray = b""
        self.streamed = False
        self.unframed = request.is_http10
        self.request_done = False
        self.received = 0
        self.sent = 0
        self.status = 0
        self.first_byte = -1.0
        self.lease: Lease | None = None
        self.meters: Meters = ()  # while it is counted
        self.upstream: UpstreamConnection | None = None
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Exchange [{self.request!r}, {self.phase.name.lower()}, {self.sent} bytes sent]>"

    def route(self) -> None:
        """Find the destination and choose how the body is taken; an error is noted, for its turn."""
        request = self.request
        try:
            if request.error is None:
                self.destination, self.path = self.client.front.resolve(self.gateway.table, request.target)
                if service_id := self.destination.service_id:
                    request.principal.check_service(service_id)
        except ProxyError as error:
            self.error = self.error or error
        if request.length or request.chunked:
            if not request.is_json:
                self.streamed = True
            else:
                self._limit(request.length)

    def _limit(self, length: int) -> None:
        """Note when a body that is held is larger than one may be."""
        limit = self.gateway.limits.max_json_body
        if length > limit:
            self.error = self.error or _too_large(limit, IN_CONFIGURATION)

    def request_id(self) -> bytes:
        """Return the request's id: the client's own, if it gave a sane one, else a new one."""
        if not self.id:
            self.id = self.gateway.next_request_id()
        return self.id

    def repeat(self, memo: RequestMemo, body: bytes) -> None:
        """Begin with a request whose head is known, and whose body is here."""
        self.destination = memo.destination
        self.path = memo.path
        self.body = body
        self.received = len(body)
        self.request_done = True
        self.begin()

    def is_plain(self) -> bool:
        """Tell whether all there is to know of the request is in its head and a body that is held."""
        request = self.request
        special = self.error or self.streamed or self.close or request.upgrade or request.expects_continue
        return not (special or request.chunked or self.destination is self.gateway.management)

    @property
    def is_ready(self) -> bool:
        """Whether enough of the request is here to begin.

        A rejected request with a small body is read to its end first, so that the connection can go on.
        """
        if self.request_done:
            return True
        if self.error is not None:
            request = self.request
            return self.close or request.chunked or request.expects_continue or request.length > SMALL_BODY
        return self.streamed

    def wants_continue(self) -> bool:
        """Tell, once, whether the client waits for a 100 before it sends its body (RFC 9110 10.1.1)."""
        wants = self.request.expects_continue and not self.received
        self.request.expects_continue = False
        return wants

    @property
    def begun(self) -> bool:
        """Whether the client has had the head of a response."""
        return self.phase is RESPONDING

    @property
    def progress(self) -> int:
        """A number that changes whenever something comes of the response."""
        return self.sent

    def add_body(self, data: bytes) -> None:
        """Take a piece of the request's body."""
        self.received += len(data)
        if 0 < self.request.max_body < self.received:
            self.client.break_off(self, _too_large(self.request.max_body, "the policy (max_request_mb)"))
            return
        if not self.streamed:
            self._hold(data)
            return
        if self.request.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._send_or_hold(data)

    def _hold(self, data: bytes) -> None:
        """Keep a piece of a body that is forwarded whole."""
        limit = self.gateway.limits.max_json_body
        if self.error is not None:
            return
        if len(self.body) + len(data) > limit:
            self.body = b""
            self.error = _too_large(limit, IN_CONFIGURATION)
        elif self.body:
            self.body = bytearray(self.body) if isinstance(self.body, bytes) else self.body
            self.body += data
        else:
            self.body = data

    def _send_or_hold(self, data: bytes) -> None:
        """Pass on a piece of a streamed body, or keep it until there is a connection."""
        if self.upstream is not None:
            self.upstream.transport.write(data)
        elif self.phase < RESPONDING and self.error is None:
            self.body = bytearray(self.body) if isinstance(self.body, bytes) else self.body
            self.body += data
            if len(self.body) > STREAM_AHEAD:
                self.client.pause_request()

    def upload(self, data: bytes) -> None:
        """Pass on what the client says in a tunnel."""
        if self.upstream is not None:
            self.received += len(data)
            self.upstream.transport.write(data)

    def end_body(self) -> None:
        """The request has arrived whole."""
        if self.streamed and self.request.chunked:
            self._send_or_hold(b"0\r\n\r\n")
        self.request_done = True

    def enter(self, meters: Meters, now: float) -> None:
        """Be counted; an error is noted."""
        try:
            enter(meters, now)
            self.meters = meters
        except RateLimitedError as error:
            self.error = error

    def begin(self) -> None:
        """Its turn has come: answer an error, or get a connection to the backend and forward."""
        destination = self.destination
        if self.error is not None or destination is None:
            self.fail(self.error or UnknownPathError("nothing answers on this path"))
        elif destination.service_id:
            lease = self.gateway.admission.acquire(destination.service_id)
            if lease is not None:
                self._forward(destination, lease)
            else:
                self.phase = ADMITTING
                self.task = spawn(self._admit(destination), f"admit to {destination.service_id}")
        else:
            self._name_caller()
            self._send(destination.pool)

    async def _admit(self, destination: Destination) -> None:
        try:
            lease = await self.gateway.admission.admit(Ask(destination.service_id))
        except ProxyError as error:
            self.fail(error)
            return
        self._forward(destination, lease)

    def _forward(self, destination: Destination, lease: Lease) -> None:
        self.lease = lease
        if destination.upstream is not lease.upstream:
            destination.pool = self.gateway.pools.of(lease.upstream)
            destination.upstream = lease.upstream
        self._send(destination.pool)

    def _name_caller(self) -> None:
        """Tell the management app what only we may tell it: who calls, under which id."""
        request = self.request
        if not request.request_id:
            request.lines += (b"x-request-id: ", self.request_id(), b"\r\n")
        principal = request.principal
        who, where = principal.name.encode("latin-1"), principal.address.encode("latin-1", "replace")
        request.lines += (PRINCIPAL, b": ", who, b"\r\n", CLIENT, b": ", where, b"\r\n")

    def _send(self, pool: Pool) -> None:
        """Send on a kept connection when a failure of it could be repaired, else on a new one."""
        self.phase = FORWARDING
        request = self.request
        if self.request_done and not self.unframed and not request.upgrade:
            connection = pool.take()
            if connection is not None:
                self.upstream = connection
                connection.send(self, self._render(pool))
                return
        self.task = spawn(self._connect_anew(pool), "connect upstream")

    async def _connect_anew(self, pool: Pool) -> None:
        try:
            timeout = self.gateway.limits.connect_timeout
            connection = await pool.connect(timeout, dechunk=self.unframed)
        except ProxyError as error:
            if not self._move(Outcome.CONNECT_FAILED):
                self.fail(error, Outcome.CONNECT_FAILED)
            return
        if self.lease is not None and not self.gateway.admission.stands(self.lease):
            connection.abort()
            self.fail(UpstreamClosedError(f"{self._who()} ended before it answered"))
            return
        self.upstream = connection
        request = self._render(pool)
        if self.streamed:
            self.body = b""
            self.client.resume_request()
            if self.wants_continue():
                self.client.transport.write(CONTINUE)
        connection.send(self, request)  # last, since it may pause the client again

    def _move(self, outcome: Outcome, retry_after: float = 0.0) -> bool:
        """Go on with another replica, if there is one to try."""
        lease, destination = self.lease, self.destination
        if lease is None or destination is None:
            return False
        if not self.gateway.admission.move(lease, outcome, retry_after):
            return False
        self._forward(destination, lease)
        return True

    def _render(self, pool: Pool) -> bytes:
        """Return the request as it goes to the backend, with what is here of its body."""
        request = self.request
        body = self.body
        length = len(body)
        if self.streamed:
            length = -1 if request.chunked else request.length
        head = request.rendered if request.rendered_for is pool else self._render_head(pool)
        return b"".join((head, request.framing(length), body))

    def _render_head(self, pool: Pool) -> bytes:
        """Return all of the head but its framing, and keep it for when the request comes again."""
        request = self.request
        parts = (request.method, b" ", pool.base_path, self.path, pool.host_line, *request.lines)
        if request.takes_credentials and self.destination is not None:
            parts += (self.destination.credentials,)
        request.rendered_for = pool
        request.rendered = b"".join(parts)
        return request.rendered

    def response_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Send the head of the response, with what came of its body, in one write."""
        client = self.client
        request = self.request
        gateway = self.gateway
        self.phase = RESPONDING
        self.status = status
        self.first_byte = gateway.now() - self.started
        self.sent = len(body)
        self.body = b""
        end = b"\r\n\r\n"
        if self.close or gateway.closing or request.upgrade:
            end = self._last_words(status)
        if request.principal.cors:
            head[:] = without_cors(head), request.principal.cors
        self.id = self.id or gateway.next_request_id()
        head += (b"x-request-id: ", self.id, end, body)
        client.transport.write(b"".join(head))
        if status == 101:
            client.open_tunnel(self)
        if client.write_paused and self.upstream is not None:
            self.upstream.pause()

    def _last_words(self, status: int) -> bytes:
        """Return the end of a head after which the connection ends, unless it becomes a tunnel."""
        if status == 101:
            return b"\r\n\r\n"
        self.close = True
        return b"\r\nconnection: close\r\n\r\n"

    def response_declined(self, retry_after: float) -> bool:
        """A replica has no room for the request: try another, if the request can be sent again."""
        if not self.request_done or self.streamed:
            return False
        upstream, self.upstream = self.upstream, None
        if self._move(Outcome.OVERLOADED, retry_after):
            return True
        self.upstream = upstream
        return False

    def response_body(self, data: bytes) -> None:
        """Send bytes of the body on."""
        self.sent += len(data)
        self.client.transport.write(data)

    def response_done(self) -> None:
        """The response is complete: the client may go on with its next request."""
        self.upstream = None
        if not self.request_done or self.request.upgrade:
            self.close = True
        self._finish(Outcome.OK if self.status < 429 else outcome_of(self.status))

    def response_lost(self, detail: str, *, stale: bool) -> None:
        """Try once more when only an old connection was at fault; else tell the client."""
        upstream, self.upstream = self.upstream, None
        if stale and upstream is not None:
            self.task = spawn(self._connect_anew(upstream.pool), "reconnect upstream")
            return
        asked_only = self.request.method in SAFE_METHODS and self.phase is FORWARDING
        if asked_only and self._move(Outcome.BROKEN):
            return
        self.fail(UpstreamClosedError(f"{self._who()} ended before it answered: {detail}"), Outcome.BROKEN)

    def response_invalid(self, detail: str) -> None:
        """What the backend sends cannot be passed on."""
        self.upstream = None
        self.fail(UpstreamInvalidError(f"{self._who()}: {detail}"), Outcome.BROKEN)

    def _who(self) -> str:
        name = self.destination.service_id if self.destination else ""
        return f"the backend of {name!r}" if name else "the management API"

    def fail(self, error: ProxyError, outcome: Outcome = Outcome.OK) -> None:
        """End with an error: a response of our own, or, when one has begun, a visible truncation of it."""
        if self.phase is DONE:
            return
        self._drop_upstream()
        if self.begun:
            self.status = BROKEN_OFF
            self.client.truncate(self)
            self._finish(outcome)
            return
        if not self.request_done or self.request.upgrade or self.gateway.closing:
            self.close = True
        self.gateway.guard.refused(self.request, error)
        head_only = self.request.method == b"HEAD"
        response, self.sent = self._refusal(error, head_only=head_only)
        self.status = error.status
        self.client.transport.write(response)
        self._finish(outcome)

    def _refusal(self, error: ProxyError, *, head_only: bool) -> tuple[bytes, int]:
        """Return a response that tells of an error, and how many bytes of it are its body."""
        dialect = dialect_of(self.client.front, self.request.target)
        request_id, extra = self.request_id(), self.extra_lines(error)
        if dialect is None:
            return problem(error, request_id, head_only=head_only, close=self.close, extra=extra)
        body = dialect.body(error, request_id.decode())
        return refusal(error, request_id, body, JSON, head_only=head_only, close=self.close, extra=extra)

    def extra_lines(self, error: ProxyError) -> bytes:
        """Return the header lines that a response of our own has for this caller."""
        principal = self.request.principal
        if isinstance(error, RateLimitedError):
            return rate_limit_headers(principal.meters, self.gateway.now()) + principal.cors
        return principal.cors

    def client_gone(self) -> None:
        """The client has left: nothing more is asked of the backend."""
        if self.phase is DONE:
            return
        self._drop_upstream()
        if self.status != 101:
            self.status = CLIENT_GONE
        self._finish(Outcome.CLIENT_GONE)

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()

    def pause_request(self) -> None:
        """The backend does not keep up with the body, or with the tunnel."""
        if not self.request_done or self.status == 101:
            self.client.pause_request()

    def resume_request(self) -> None:
        """The backend keeps up again."""
        if not self.request_done or self.status == 101:
            self.client.resume_request()

    def _finish(self, outcome: Outcome) -> None:
        """Account, and make room for the next exchange of this connection. Always runs, once."""
        self.phase = DONE
        if self.task is not None:
            self._end_task(self.task)
        if self.lease is not None:
            self.gateway.admission.release(self.lease, outcome)
        now = self.gateway.now()
        self._record(now - self.started)
        if self.meters:
            leave(self.meters, now, self.tokens_used() if self.request.principal.counts_tokens else 0)
        self.client.exchange_done(self)

    def _record(self, seconds: float) -> None:
        """Account for the exchange, which took that long."""
        destination = self.destination
        self.gateway.recorder.exchange(
            destination.service_id if destination is not None else "",
            self.status,
            seconds,
            self.first_byte,
            self.received,
            self.sent,
        )

    def tokens_used(self) -> int:
        """Return what counts against a limit of tokens; 0 where nothing is known of them."""
        return 0

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.done() and task is not asyncio.current_task():
            task.cancel()


def outcome_of(status: int) -> Outcome:
    """Say what a status tells of the replica that answered it.

    >>> outcome_of(404), outcome_of(429), outcome_of(500)
    (<Outcome.OK: 'ok'>, <Outcome.OVERLOADED: 'overloaded'>, <Outcome.SERVER_ERROR: 'server_error'>)
    """
    if status in BUSY:
        return Outcome.OVERLOADED
    return Outcome.SERVER_ERROR if status >= 500 else Outcome.OK


def _too_large(limit: int, where: str) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body may have {limit} bytes at most; {where} can raise that")
