"""One request and its response, in the order in which they travel.

The rooms are: guard, route, admit, forward, relay, account.

`make_plan` decides what the head alone decides. An `Exchange` does the rest: the client's connection feeds it
the request and says when its turn has come, the backend's connection feeds it the response. Its parts are
chosen from the head: the resolver finds a model, the body is held or streamed, the rewriter and the usage
meter take what passes. Without them, bytes go through as they come.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import partial
from typing import Any

from loguru import logger

from ai_proxy.core.errors import (
    ProxyError,
    RateLimitedError,
    UnknownPathError,
    UpstreamClosedError,
    UpstreamInvalidError,
)
from ai_proxy.core.http import CLIENT, PRINCIPAL
from ai_proxy.core.ports import Tracing
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import Lease, Outcome
from ai_proxy.core.settings import MB
from ai_proxy.core.usage import UNKNOWN, LiveRequest, Progress, RequestRecord
from ai_proxy.gateway.guard import Guard
from ai_proxy.gateway.http.body import (
    IN_CONFIGURATION,
    IN_POLICY,
    LAST_CHUNK,
    Body,
    HeldBody,
    StreamedBody,
    frame_chunk,
    too_large,
)
from ai_proxy.gateway.http.multipart import is_multipart
from ai_proxy.gateway.http.pool import Pool
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.respond import JSON, LocalResponse, error_response, stream_head
from ai_proxy.gateway.http.response import outcome_of
from ai_proxy.gateway.http.timeouts import UNLIMITED, Pending, Wait
from ai_proxy.gateway.http.wire import CONTINUE, Header, origin_form, without_cors
from ai_proxy.gateway.inference.end_detector import EndDetector, end_detector
from ai_proxy.gateway.inference.form import FormBody
from ai_proxy.gateway.inference.prompt import LARGE
from ai_proxy.gateway.inference.resolver import FormResolver, PromptResolver, Resolver
from ai_proxy.gateway.inference.rewriter import ResponseRewriter, WholeResponse, is_event_stream, warning_line
from ai_proxy.gateway.inference.usage import AnswerMeter, StreamMeter, UsageMeter, charged, known
from ai_proxy.gateway.ports import ClientSide, Shared, UpstreamSide
from ai_proxy.gateway.principal import NOBODY, Principal
from ai_proxy.gateway.routing.endpoints import Frontend, ModelEndpoint
from ai_proxy.gateway.routing.table import Destination
from ai_proxy.platform.tasks import spawn
from ai_proxy.security.limiter import Meters, enter, leave, rate_limit_headers

CLIENT_GONE = 499
BROKEN_OFF = 599
SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""May be sent again although the backend may have acted on them (RFC 9110 section 9.2.1)."""
AT_ONCE = 0.25
"""Seconds within which a kept connection that the backend had closed is noticed: later, it has worked."""
SMALL_BODY = 64 * 1024
"""A rejected request's body up to this size is read to its end, so that the connection can go on."""
STREAM_AHEAD = 256 * 1024
"""Bytes of a streamed body that are held while there is no connection to send them on."""
MANAGEMENT_BODY = MB
"""Bytes of a body for the management app, which holds it whole."""
CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key", b"cookie"})
"""Headers by which a client of a model proves who it is: to the proxy, never to a backend."""
FORWARDED_FOR = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})
"""Headers that say where a request comes from."""
REPLACED = CREDENTIALS | FORWARDED_FOR | {b"content-type", b"accept-encoding"}
"""Headers that a request to a model loses: a compressed answer could not be read for its usage."""
COMPRESSED = frozenset({b"accept-encoding"})
"""Removed from a request whose tokens are counted: a compressed answer could not be read."""
CHUNKED = b"transfer-encoding: chunked\r\n"
NO_TOKENS = (UNKNOWN, UNKNOWN)

type Read[Found] = Callable[[Shared, bytes | bytearray, Callable[[], bytes]], Found]
"""Finds out what a body asks for."""

EVENT_ENDS = (b"\n\n\r\n", b"\r\n\r\n\r\n")
"""How a piece ends where both an event and the chunk that holds it are complete."""


@dataclass(slots=True, eq=False)
class Plan:
    """All that the head of a request decides; kept with the head, for when the same one comes again.

    Attributes:
        frontend: What the listener answers.
        request: The head.
        principal: Who calls.
        endpoint: The path on which a model is asked; None for any other.
        destination: Where a request to any other path goes; None where the body decides.
        path: To ask there.
        error: Why the request is refused; None when it is not.
        lines: Header lines on every response.
        answer: The response to a request that is answered from its head; None for any other.
        max_body: Most bytes of the body; 0 for any number.
        max_body_setting: The setting of `max_body`; empty when there is none.
        backend_credentials: Whether the backend gets the service's own key.
        streams_body: Whether the body is passed on as it arrives.
        is_form: Whether the body is a multipart form that names a model.
        traceparent: The client's, where the proxy traces and so does not forward it.
        rendered: The head for a backend, without its framing and what concerns one exchange only.
        rendered_pool: The pool that it was rendered for,
        rendered_destination: the destination,
        rendered_path: and the path.
        framing: What ends the head of a request whose body is held,
        framed: and has this length.
    """

    frontend: Frontend
    request: Request
    principal: Principal
    endpoint: ModelEndpoint | None = None
    destination: Destination | None = None
    path: bytes = b""
    error: ProxyError | None = None
    lines: bytes = b""
    answer: LocalResponse | None = None
    max_body: int = 0
    max_body_setting: str = IN_POLICY
    backend_credentials: bool = False
    streams_body: bool = False
    is_form: bool = False
    traceparent: bytes = b""
    rendered: bytes = b""
    rendered_pool: Pool | None = None
    rendered_destination: Destination | None = None
    rendered_path: bytes = b""
    framing: bytes = b""
    framed: int = -1


def make_plan(
    shared: Shared, frontend: Frontend, guard: Guard, request: Request, headers: list[Header], peer: str
) -> Plan:
    """Decide what the head of a request decides: who calls, whether they may, and where it goes.

    Args:
        shared: What all exchanges share.
        frontend: What the listener answers.
        guard: Decides who may call there.
        request: The head, read.
        headers: All headers that came, in their order.
        peer: Address of the other end of the connection.
    """
    target = request.target
    access = guard.inspect(request, headers, peer, frontend.scope(target))
    plan = Plan(
        frontend,
        request,
        access.principal,
        endpoint=frontend.endpoint(target) if request.method == b"POST" else None,
        error=request.error or access.error,
        lines=access.principal.cors + frontend.lines,
        answer=access.preflight,
        max_body=access.max_body,
        backend_credentials=access.backend_credentials,
    )

    if plan.endpoint is None:
        plan.streams_body = request.has_body and not request.is_json
        if plan.principal.counts_tokens:
            request.drop(COMPRESSED)
        if plan.error is None and plan.answer is None:
            try:
                if frontend.answer is not None:
                    plan.answer = frontend.answer(request, headers)
                    return plan
                plan.destination, plan.path = frontend.resolve(shared.table, target)
                if service_id := plan.destination.service_id:
                    plan.principal.check_service(service_id)
                elif not 0 < plan.max_body < MANAGEMENT_BODY:
                    plan.max_body, plan.max_body_setting = MANAGEMENT_BODY, ""
                    if request.length > MANAGEMENT_BODY:
                        plan.error = too_large(MANAGEMENT_BODY, "")
            except ProxyError as error:
                plan.error = error
    else:
        plan.path = origin_form(target)
        content_type = request.header(b"content-type")
        plan.is_form = plan.streams_body = not request.is_json and is_multipart(content_type)
        dropped = REPLACED
        if shared.tracing is not None:
            plan.traceparent = request.header(b"traceparent")
            dropped |= {b"traceparent"}
        names_origin = any(map(request.header, FORWARDED_FOR))
        request.drop(dropped)
        if names_origin and (address := plan.principal.address.encode("latin-1", "replace")):
            request.lines += (b"x-forwarded-for", b": ", address, b"\r\n")  # as the guard has judged it
        request.lines += (b"content-type", b": ", content_type if plan.is_form else JSON, b"\r\n")
        plan.backend_credentials = True

    limit = shared.limits.max_json_body
    if request.length > limit and not plan.streams_body:
        plan.error = plan.error or too_large(limit, IN_CONFIGURATION)
    return plan


def refused(frontend: Frontend, error: ProxyError, method: bytes) -> Plan:
    """Return the plan for what could not be read as a request; `method` may be empty for the same reason."""
    nothing = Request(method, b"")
    nothing.close = True
    return Plan(frontend, nothing, NOBODY, error=error, lines=frontend.lines)


class Phase(IntEnum):
    """How far an exchange has come."""

    READING = auto()
    ADMITTING = auto()
    FORWARDING = auto()
    RESPONDING = auto()
    DONE = auto()


READING, ADMITTING, FORWARDING, RESPONDING, DONE = Phase
PROGRESS = {READING: Progress.READING, ADMITTING: Progress.WAITING, FORWARDING: Progress.FORWARDING}


class Exchange:
    """One request and its response. Whatever happens, it ends in `_finish`, once."""

    __slots__ = (
        "body",
        "client",
        "close",
        "content_only",
        "destination",
        "ends_by_closing",
        "error",
        "first_byte",
        "first_token",
        "forwarded",
        "head_sent",
        "held",
        "id",
        "lease",
        "meters",
        "original",
        "passes_chunks",
        "payload",
        "phase",
        "plan",
        "pool",
        "received",
        "request",
        "request_done",
        "resolver",
        "rewriter",
        "sent",
        "shared",
        "started",
        "status",
        "task",
        "traceparent",
        "upstream",
        "usage",
        "waited",
    )

    def __init__(self, shared: Shared, client: ClientSide, plan: Plan) -> None:
        request = plan.request
        self.shared = shared
        self.client = client
        self.plan = plan
        self.request = request
        self.id = request.request_id
        self.started = shared.now()
        self.phase = READING
        self.error = plan.error
        self.close = request.close  # the connection, after the response
        # The request.
        self.body: Body | None = None
        self.payload: bytes | bytearray = b""  # what is to be sent of the body, and not sent yet
        self.original: bytes | bytearray = b""  # the client's, until there is a lease
        self.received = 0
        self.held = 0  # bytes of the body that are counted as held
        self.request_done = False
        self.resolver: Resolver | None = None
        self.destination = plan.destination
        self.traceparent = b""
        # The way to the backend.
        self.meters: Meters = ()  # that count the request, while it is counted
        self.waited = 0.0  # for a lease, if there was none at once; negative while it waits
        self.lease: Lease | None = None
        self.task: asyncio.Task[None] | None = None
        self.upstream: UpstreamSide | None = None
        self.pool: Pool | None = None  # of a kept connection that it was sent on
        self.forwarded = 0.0  # when that was
        # The response.
        self.head_sent = False  # whether the client has a head: the backend's, or one of ours before it
        self.content_only = request.is_http10  # whether the body is wanted without chunk framing
        self.ends_by_closing = request.is_http10  # whether the end of the connection ends it
        self.passes_chunks = False  # whether it is passed on with it
        self.rewriter: ResponseRewriter | None = None
        self.usage: UsageMeter | None = None
        self.status = 0
        self.sent = 0
        self.first_byte = -1.0
        self.first_token = -1.0

        endpoint = plan.endpoint
        if endpoint is None:
            if plan.principal.counts_tokens:
                self.usage = StreamMeter()
        elif plan.is_form:
            self.body = form = FormBody(plan.request.header(b"content-type"), chunked=request.chunked)
            self.resolver = FormResolver(endpoint, plan.principal, plan.path, form)
            self.error = self.error or form.error
        else:
            self.resolver = PromptResolver(
                endpoint, plan.principal, plan.path, plan.path, endpoint.streams_by_default
            )

    def __repr__(self) -> str:
        return f"<Exchange [{self.request!r}, {self.phase.name.lower()}, {self.sent} bytes sent]>"

    def request_id(self) -> bytes:
        """Return the request's id: the client's own, if it sent a sane one, else a new one."""
        if not self.id:
            self.id = self.shared.next_request_id()
        return self.id

    # The request arrives: its body is held, or passed on.

    def add_body(self, data: bytes) -> None:
        """Take a piece of the request's body."""
        self.received += len(data)
        limit = self.plan.max_body
        if 0 < limit < self.received:
            self.client.discard()
            self.break_off(too_large(limit, self.plan.max_body_setting))
            return
        if self.error is not None or self.plan.answer is not None:
            return
        if self.body is None:
            self.body = self._new_body()
        try:
            if not self.body.is_known and self.received != self.request.length:
                self._hold(len(data))
            ahead = self.body.add(data)
            if ahead:
                self._pass_on(ahead)
        except ProxyError as error:
            self._refuse_body(error)

    def _refuse_body(self, error: ProxyError) -> None:
        """Answer with an error; what was passed on of the body already is never followed by its end."""
        if self.phase is not READING:
            self.client.discard()
            self.break_off(error)
        else:
            self.error = error
            self.body, self.payload = None, b""
            self._release_held()

    def _hold(self, count: int) -> None:
        """Take bytes that stay in memory from the budget.

        Raises:
            OverloadedError: The client's budget or the whole one is used up.
        """
        self.shared.held.take(self.plan.principal.client_id, count)
        self.held += count

    def _release_held(self) -> None:
        """Give the bytes that were counted as held back to the budget."""
        if self.held:
            self.shared.held.give_back(self.plan.principal.client_id, self.held)
            self.held = 0

    def forget(self) -> None:
        """Release the memory of a request that will never be served."""
        self._release_held()

    def _new_body(self) -> Body:
        if self.plan.streams_body:
            return StreamedBody(chunked=self.request.chunked)
        return HeldBody(self.shared.limits.max_json_body)

    def end_body(self) -> None:
        """Take the end of the request."""
        if self.error is None and (self.body is not None or self.request.has_body):
            self.body = self.body or self._new_body()
            try:
                ahead = self.body.end()
                if ahead:
                    self._pass_on(ahead)
            except ProxyError as error:
                self._refuse_body(error)
        self.body = None
        self.request_done = True

    def _pass_on(self, data: bytes | bytearray) -> None:
        """Send a piece of the body, or keep it until there is a connection."""
        if self.upstream is not None:
            self.upstream.transport.write(data)
        elif self.phase < RESPONDING:
            if self.plan.streams_body:
                self._hold(len(data))
            if self.payload:
                self.payload = bytearray(self.payload) if isinstance(self.payload, bytes) else self.payload
                self.payload += data
            else:
                self.payload = data
            if self.plan.streams_body and len(self.payload) > STREAM_AHEAD:
                self.client.pause_request()

    def break_off(self, error: ProxyError) -> None:
        """Refuse a request that cannot be read to its end, or may not go on; in its turn."""
        self.close = True
        if self.phase is READING:
            self.error = error
        else:
            self.fail(error)

    @property
    def is_ready(self) -> bool:
        """Whether enough of the request is here to begin.

        A small body that is of no interest is read to its end first, so that the connection can go on.
        """
        if self.request_done:
            return True
        if self.error is not None or self.plan.answer is not None:
            request = self.request
            return self.close or request.chunked or request.expects_continue or request.length > SMALL_BODY
        return self.plan.streams_body and (self.body is None or self.body.is_known)

    @property
    def awaits_body(self) -> bool:
        """Whether nothing else is waited for before the rest of the body."""
        return self.phase < RESPONDING and (self.received > 0 or not self.request.expects_continue)

    def wants_continue(self) -> bool:
        """Return, once, whether the client waits for a 100 before it sends the body (RFC 9110 10.1.1)."""
        wants = self.request.expects_continue and not self.received
        self.request.expects_continue = False
        return wants

    @property
    def is_active(self) -> bool:
        """Whether its turn has come and it is being answered."""
        return self.phase is not READING

    @property
    def is_cacheable(self) -> bool:
        """Whether all there is to know of the request was in its head and a body that was held."""
        request, plan = self.request, self.plan
        special = self.error or plan.streams_body or self.close or plan.answer
        return not (
            special
            or request.upgrade
            or request.expects_continue
            or request.chunked
            or plan.destination is self.shared.table.management
        )

    @property
    def cacheable_body(self) -> int:
        """Most bytes of a body that may follow the same head."""
        limits = (self.shared.limits.max_json_body, self.plan.max_body)
        return min(limit for limit in limits if limit)

    # Guard and route, as far as they take more than the head: limits, and the model in the body.

    def begin_whole(self, body: bytes) -> None:
        """Begin with a request whose head is known, and whose body is here."""
        self.payload = body
        self.received = len(body)
        self.request_done = True
        self.begin()

    def begin(self) -> None:
        """Its turn has come: count the request, find out who answers, and go there."""
        try:
            if self.plan.principal.meters and not self.meters:
                self.await_body()
            resolver = self.resolver
            if self.error is None and self.plan.answer is not None:
                self._respond(self.plan.answer)
                return
            if self.error is None and resolver is not None:
                if len(self.payload) > LARGE and not self.plan.is_form:
                    self.phase = ADMITTING
                    self._work(partial(self._resolve_large, resolver), "read a large body")
                    return
                try:
                    if self.shared.tracing is not None:
                        self._begin_trace(self.shared.tracing)
                    self._follow(resolver, resolver.resolve(self.shared, self.payload, self.request_id))
                except ProxyError as error:
                    self.error = error
                if self.error is not None and not self.is_ready:
                    return  # until the rest of a small upload has come
            self._dispatch()
        except Exception as error:  # noqa: BLE001 - a surprise must not leave its request unanswered
            self.fail(self._unexpected(error))

    async def _resolve_large(self, resolver: Resolver) -> None:
        if self.shared.tracing is not None:
            self._begin_trace(self.shared.tracing)
        self._follow(resolver, await self._read_large(resolver.resolve, self.payload))
        self._dispatch()

    async def _read_large[Found](self, read: Read[Found], payload: bytes | bytearray) -> Found:
        """Read a body in the reader's thread, while other requests go on."""
        self.request_id()
        call = partial(read, self.shared, payload, self.request_id)
        return await asyncio.get_running_loop().run_in_executor(self.shared.reader, call)

    def _dispatch(self) -> None:
        """Hand the request to what answers it: an error, an unload, or a destination."""
        destination = self.destination
        if self.error is not None:
            self.fail(self.error)
        elif self.resolver is not None and self.resolver.unload is not None:
            self.shared.admission.unload(destination.service_id if destination is not None else "")
            self._write_whole(WholeResponse(200, self.resolver.unload.answer))
            self.response_done()
        elif destination is None:
            self.fail(UnknownPathError("nothing answers on this path"))
        else:
            self._admit(destination)

    def await_body(self) -> None:
        """Count the request against its limits, once, before the rest of its body is read."""
        meters = self.plan.principal.meters
        if not meters or self.meters or isinstance(self.error, RateLimitedError):
            return
        try:
            enter(meters, self.shared.now())
            self.meters = meters
        except RateLimitedError as error:
            self._refuse_body(error)

    def _begin_trace(self, tracing: Tracing) -> None:
        """Begin a trace of the request, unless it has one."""
        if not self.traceparent:
            own = tracing.begin(self.plan.traceparent) or self.plan.traceparent
            if own:
                self.traceparent = b"traceparent: %b\r\n" % own

    def _follow(self, resolver: Resolver, payload: bytes | bytearray) -> None:
        """Take over what the resolver has found: the destination, what to send, a meter, a rewriter."""
        if payload is not self.payload:
            self.original, self.payload = self.payload, payload
        if resolver.found is not None:
            self.destination = resolver.found.destination
        self.usage = StreamMeter() if resolver.streaming else AnswerMeter()
        if resolver.translation is not None or self.head_sent:
            self._rewrite(resolver)

    def _rewrite(self, resolver: Resolver) -> ResponseRewriter:
        """Install a rewriter for the response."""
        self.content_only = True
        self.rewriter = ResponseRewriter(resolver.translation, streaming=resolver.streaming)
        return self.rewriter

    def _respond(self, response: LocalResponse) -> None:
        """Answer from the head alone."""
        head_only = self.request.method == b"HEAD"
        unread = not self.request_done or bool(self.request.upgrade)
        self.close = self.close or self.shared.closing or unread
        written, self.sent = response.render(self.request_id(), head_only=head_only, close=self.close)
        self.status = response.status
        self.client.transport.write(written)
        self._finish(Outcome.OK)

    # Admit: a lease on an upstream, at once or after a wait.

    def _admit(self, destination: Destination) -> None:
        service_id = destination.service_id
        if not service_id:  # the management app needs no lease
            self._send(destination.pool)
        elif (lease := self.shared.admission.acquire(service_id)) is not None:
            self._forward(destination, lease)
        else:
            self.phase = ADMITTING
            self.waited = -1.0
            self._work(partial(self._wait_for_lease, destination), f"admit to {service_id}")

    async def _wait_for_lease(self, destination: Destination) -> None:
        service_id, principal = destination.service_id, self.plan.principal
        ask = Ask(service_id, principal.key_id or principal.address)
        if (uncounted := len(self.payload) + len(self.original) - self.held) > 0:
            self._hold(uncounted)
        resolver = self.resolver
        comments = None
        if resolver is not None and self._wants_comments(resolver):
            commenting = partial(self._comment_while_waiting, resolver, service_id)
            comments = spawn(self._owned(commenting), "heartbeat")
        try:
            lease = await self.shared.admission.admit(ask)
        finally:
            if comments is not None:
                comments.cancel()
        self.lease = lease  # at once: from here on it is given back whatever happens
        self.waited = self.shared.now() - self.started
        if resolver is not None:
            original = self.original or self.payload
            if len(original) > LARGE and not self.plan.is_form:
                payload = await self._read_large(resolver.resolve_again, original)
            else:
                payload = resolver.resolve_again(self.shared, original, self.request_id)
            if payload is not None:
                self.rewriter, self.content_only = None, self.request.is_http10
            self._follow(resolver, self.payload if payload is None else payload)
        self._forward(self.destination or destination, lease)

    def _wants_comments(self, resolver: Resolver) -> bool:
        """Return whether the client of a stream can be sent comments while it waits."""
        if not resolver.streaming or not resolver.endpoint.heartbeat or self.request.is_http10:
            return False
        return resolver.found is not None and resolver.found.route.offer.service.heartbeat

    async def _comment_while_waiting(self, resolver: Resolver, service_id: str) -> None:
        """Say from time to time, in a comment, what the client waits for; until cancelled."""
        shared = self.shared
        while True:
            await asyncio.sleep(shared.heartbeat)
            if not self.head_sent:
                self._begin_stream(self._rewrite(resolver).media_type)
            expected = shared.admission.load_time(service_id)
            reason = shared.admission.wait_reason(service_id).replace("\n", " ")
            self._write_stream(
                b": loading %b %d%b s%b\n\n"
                % (
                    service_id.encode(),
                    round(shared.now() - self.started),
                    b"/%d" % round(expected) if expected else b"",
                    b"; " + reason.encode() if reason else b"",
                )
            )

    # Forward: on a connection to the upstream, a kept one or a new one.

    def _forward(self, destination: Destination, lease: Lease) -> None:
        self.lease = lease
        self.original = b""
        if destination.upstream is not lease.upstream:
            destination.pool = self.shared.pools.of(lease.upstream)
            destination.upstream = lease.upstream
        self._send(destination.pool)

    def _send(self, pool: Pool) -> None:
        """Send on a kept connection when its loss could be repaired, else on a new one."""
        self.phase = FORWARDING
        if self.request_done and not self.request.upgrade:
            connection = pool.take()
            if connection is not None:
                self.upstream, self.pool = connection, pool
                self.forwarded = self.shared.now()
                connection.send(self, self._render(pool))
                return
        self._work(partial(self._connect, pool), "connect upstream")

    async def _connect(self, pool: Pool) -> None:
        """Send on a new connection."""
        try:
            connection = await pool.connect(self.shared.limits.connect_timeout)
        except ProxyError as error:
            if not self._move(Outcome.CONNECT_FAILED):
                self.fail(error, Outcome.CONNECT_FAILED)
            return
        if self.lease is not None and not self.shared.admission.stands(self.lease):
            connection.abort()
            self.fail(UpstreamClosedError(f"{self._backend()} ended before it answered"))
            return
        self.upstream = connection
        beginning = self._render(pool)
        if self.plan.streams_body:
            self.payload = b""
            self._release_held()
            self.client.resume_request()
            if self.wants_continue():
                self.client.transport.write(CONTINUE)
        connection.send(self, beginning)  # last, since it may pause the client again

    def _move(self, outcome: Outcome, retry_after: float = 0.0) -> bool:
        """Go on with another replica, if there is one to try."""
        lease, destination = self.lease, self.destination
        if lease is None or destination is None:
            return False
        if not self.shared.admission.move(lease, outcome, retry_after):
            return False
        self._forward(destination, lease)
        return True

    def _render(self, pool: Pool) -> bytes:
        """Return the request as it goes to the backend, with what is here of its body."""
        plan, request, resolver = self.plan, self.request, self.resolver
        path = plan.path if resolver is None else resolver.path
        destination = self.destination
        same = plan.rendered_pool is pool and plan.rendered_destination is destination
        if not (same and plan.rendered_path is path):
            plan.rendered = self._render_head(pool, path)
            plan.rendered_pool, plan.rendered_destination, plan.rendered_path = pool, destination, path
        payload = self.payload
        if not plan.streams_body:
            if plan.framed != len(payload):
                plan.framed, plan.framing = len(payload), request.framing(len(payload))
            return b"".join((plan.rendered, self.traceparent, plan.framing, payload))
        beginning, growth = (b"", 0) if resolver is None else (resolver.beginning, resolver.growth)
        framing = request.framing(-1 if request.chunked else request.length + growth)
        return b"".join((plan.rendered, self.traceparent, framing, beginning, payload))

    def _render_head(self, pool: Pool, path: bytes) -> bytes:
        """Return all of the head but its framing and what concerns this exchange only."""
        request, destination = self.request, self.destination
        parts = [request.method, b" ", pool.base_path, path, pool.host_line, *request.lines]
        if destination is not None and self.plan.backend_credentials:
            parts.append(destination.credentials)
        if destination is self.shared.table.management:
            # The app believes these, since nobody else can send them (http/request.py drops them).
            principal = self.plan.principal
            if not request.request_id:
                parts += (b"x-request-id: ", self.request_id(), b"\r\n")
            parts += (PRINCIPAL, b": ", principal.name.encode("latin-1"), b"\r\n")
            parts += (CLIENT, b": ", principal.address.encode("latin-1", "replace"), b"\r\n")
        return b"".join(parts)

    @property
    def _is_whole(self) -> bool:
        """Whether all of the request is held, so that it can be sent again."""
        return self.request_done and not self.plan.streams_body

    # Relay: the response, as it comes or rewritten.

    def response_declined(self, retry_after: float) -> bool:
        """Try another replica, since this one has no room; False where the request cannot be sent again."""
        if not self._is_whole:
            return False
        upstream, self.upstream = self.upstream, None
        if self._move(Outcome.OVERLOADED, retry_after):
            return True
        self.upstream = upstream
        return False

    def response_until_close(self, headers: list[Header]) -> EndDetector | None:
        """Return a detector for the end of a body that ends with the backend's connection.

        Where there is none, the body ends the client's connection too: a last chunk would claim that it is
        complete.
        """
        detector = end_detector(headers)
        if detector is None and self.rewriter is None:
            self.content_only = self.close = self.ends_by_closing = True
        return detector

    def response_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Send the head of the response, with what came of its body, in one write; or have it rewritten."""
        self.first_byte = self.shared.now() - self.started
        if self.held:
            self.payload = b""  # it is not sent again
            self._release_held()
        rewriter, resolver = self.rewriter, self.resolver
        if rewriter is not None:
            self._rewrite_head(rewriter, status, head)
            if body:
                self.response_body(body)
            return
        if resolver is not None and head[-1] == CHUNKED:
            unasked = status == 200 and not resolver.streaming and not self.plan.streams_body
            if unasked and is_event_stream(head):
                detail = f"{self._backend()} answers with a stream, though the request asks for none"
                self.fail(UpstreamInvalidError(detail), Outcome.BROKEN)
                return
            self.passes_chunks = True
        if body and self.usage is not None:
            self.first_token = self.first_byte
            self.usage.see(body)
        self._write_head(status, head, body)

    def _write_head(self, status: int, head: list[bytes], body: bytes) -> None:
        client, shared, request = self.client, self.shared, self.request
        self.phase = RESPONDING
        self.head_sent = True
        self.status = status
        self.sent = len(body)
        self.payload = b""
        if self.resolver is not None and self.resolver.warnings:
            head.append(self._warning(self.resolver))
        end = b"\r\n\r\n"
        if (self.close or shared.closing or request.upgrade) and status != 101:
            self.close = True
            end = b"\r\nconnection: close\r\n\r\n"
        if lines := self.plan.lines:
            if self.plan.principal.cors:
                head[:] = (without_cors(head),)
            head.append(lines)
        self.id = self.id or shared.next_request_id()
        head += (b"x-request-id: ", self.id, end, body)
        client.transport.write(b"".join(head))
        if status == 101:
            client.open_tunnel(self)
        if client.write_paused and self.upstream is not None:
            self.upstream.pause()

    def response_body(self, data: bytes) -> None:
        """Send bytes of the body, as they come or rewritten."""
        usage, rewriter = self.usage, self.rewriter
        if usage is not None:
            usage.see(data)
            if self.first_token < 0:
                self.first_token = self.shared.now() - self.started
        if rewriter is None:
            self.sent += len(data)
            self.client.transport.write(data)
        elif self.phase is not DONE:
            try:
                self._write_stream(rewriter.body(data))
            except ProxyError as error:
                self.fail(error, rewriter.outcome)
            except Exception as error:  # noqa: BLE001 - a defect of a translation ends its own request
                self.fail(self._unexpected(error))

    def response_done(self) -> None:
        """The response is complete: the client may go on with its next request."""
        self.upstream = None
        if self.phase is DONE or (self.rewriter is not None and not self._rewrite_end(self.rewriter)):
            return
        if not self.request_done or self.request.upgrade:
            self.close = True
        self._finish(Outcome.OK if self.status < 429 else outcome_of(self.status))

    def _rewrite_head(self, rewriter: ResponseRewriter, status: int, head: list[bytes]) -> None:
        """Begin a rewritten stream; anything else is written when it is complete."""
        self.payload = b""
        try:
            rewriter.head(status, head)
        except ProxyError as error:
            self.fail(error, rewriter.outcome)
            return
        if rewriter.streams:
            self.phase = RESPONDING
            if not self.head_sent:
                self._begin_stream(rewriter.media_type)
            if self.client.write_paused and self.upstream is not None:
                self.upstream.pause()

    def _rewrite_end(self, rewriter: ResponseRewriter) -> bool:
        """Write what is left of a rewritten response; False where that has no good end."""
        try:
            end = rewriter.end(head_sent=self.head_sent)
        except ProxyError as error:
            self.fail(error, rewriter.outcome)
            return False
        except Exception as error:  # noqa: BLE001 - a defect of a translation ends its own request
            self.fail(self._unexpected(error))
            return False
        if isinstance(end, WholeResponse):
            self._write_whole(end)
        else:
            self._write_stream(end)
            if not self.request.is_http10:
                self.client.transport.write(LAST_CHUNK)
        return True

    def _begin_stream(self, media_type: bytes) -> None:
        """Write the head of a stream that the proxy begins."""
        self.head_sent = True
        self.status = 200
        self.close = self.close or self.shared.closing or self.request.is_http10
        extra = self.plan.lines
        if self.resolver is not None and self.resolver.warnings:
            extra += self._warning(self.resolver)
        head = stream_head(
            media_type, self.request_id(), extra, is_http10=self.request.is_http10, close=self.close
        )
        self.client.transport.write(head)

    def _warning(self, resolver: Resolver) -> bytes:
        """Log what was changed of the request; return the header line that says so."""
        service_id = self.destination.service_id if self.destination is not None else ""
        logger.bind(request_id=self.request_id().decode(), service=service_id).info(
            "{}: {}", resolver.endpoint.path, "; ".join(resolver.warnings)
        )
        return warning_line(resolver.warnings)

    def _write_stream(self, data: bytes) -> None:
        if data:
            self.sent += len(data)
            self.client.transport.write(data if self.request.is_http10 else frame_chunk(data))

    def _write_whole(self, response: WholeResponse) -> None:
        head = [
            b"HTTP/1.1 %d \r\n" % response.status,
            b"content-type: application/json\r\n",
            b"content-length: %d\r\n" % len(response.body),
        ]
        self._write_head(response.status, head, response.body)

    def send_tunnel(self, data: bytes) -> None:
        """Pass on what the client says in a tunnel."""
        if self.upstream is not None:
            self.received += len(data)
            self.upstream.transport.write(data)

    def pause_request(self) -> None:
        """The backend does not keep up with the body, or with the tunnel."""
        if not self.request_done or self.status == 101:
            self.client.pause_request()

    def resume_request(self) -> None:
        """The backend keeps up again."""
        self.client.resume_request()

    def pause_response(self) -> None:
        """The client does not keep up."""
        if self.upstream is not None:
            self.upstream.pause()

    def resume_response(self) -> None:
        """The client keeps up again."""
        if self.upstream is not None:
            self.upstream.resume()

    # What goes wrong on the way.

    def response_lost(self, detail: str, *, unanswered: bool) -> None:
        """Try again when nothing can have come of the first try; else tell the client."""
        self.upstream = None
        at_once = self.shared.now() - self.forwarded < AT_ONCE
        if unanswered and at_once and self.pool is not None:
            self._work(partial(self._connect, self.pool), "reconnect upstream")
            return
        repeatable = self._is_whole and self.request.method in SAFE_METHODS and self.phase is FORWARDING
        if repeatable and self._move(Outcome.BROKEN):
            return
        error = UpstreamClosedError(f"{self._backend()} ended before it answered: {detail}")
        self.fail(error, Outcome.BROKEN)

    def response_invalid(self, detail: str) -> None:
        """Refuse to pass on what the backend sends."""
        self.upstream = None
        self.fail(UpstreamInvalidError(f"{self._backend()}: {detail}"), Outcome.BROKEN)

    def time_out(self, error: ProxyError) -> None:
        """Give up on a backend that has been silent for too long."""
        self.fail(error, Outcome.TIMEOUT)

    def client_gone(self) -> None:
        """Ask nothing more of the backend: the client has left."""
        if self.phase is DONE:
            return
        self._drop_upstream()
        if self.status != 101:
            self.status = CLIENT_GONE
        self._finish(Outcome.CLIENT_GONE)

    def fail(self, error: ProxyError, outcome: Outcome = Outcome.OK) -> None:
        """End with an error: a response of our own, or, when one has begun, a visible truncation of it."""
        if self.phase is DONE:
            return
        if not self.plan.principal.reads_logs:
            error = error.without_log()
        error.__traceback__ = error.__context__ = error.__cause__ = None  # whose frames hold the body
        self.error = error
        self._drop_upstream()
        if self.head_sent:
            if event := self._error_event(error):
                self.client.transport.write(frame_chunk(event))
            self.status = BROKEN_OFF
            self.client.truncate(self)
            self._finish(outcome)
            return
        if not self.request_done or self.request.upgrade or self.shared.closing:
            self.close = True
        try:
            response, self.sent = self._error_response(error)
        except Exception as broken:  # noqa: BLE001 - an error that cannot be written must not keep what it holds
            self._unexpected(broken)
            self.client.transport.abort()
        else:
            self.client.transport.write(response)
        self.status = error.status
        self._finish(outcome)

    def _error_response(self, error: ProxyError) -> tuple[bytes, int]:
        """Return a whole response that describes an error, and how many bytes of it are its body."""
        principal = self.plan.principal
        self.shared.guard.refused(principal, self.request, error)
        dialect = self.plan.frontend.dialect(self.request.target)
        extra = self.plan.lines
        if isinstance(error, RateLimitedError):
            extra = rate_limit_headers(principal.meters, self.shared.now()) + extra
        return error_response(
            error,
            self.request_id(),
            dialect.body(error, self.request_id().decode()) if dialect is not None else None,
            head_only=self.request.method == b"HEAD",
            close=self.close,
            extra=extra,
        )

    def _error_event(self, error: ProxyError) -> bytes:
        """Return what ends a stream with an error; empty where that would break its framing."""
        resolver = self.resolver
        if resolver is None or not resolver.streaming or self.request.is_http10:
            return b""
        event = resolver.endpoint.dialect.event(error, self.request_id().decode())
        if self.rewriter is not None:
            return self.rewriter.error_event(event, error)
        latest = self.usage.latest if self.usage is not None else b""
        at_boundary = self.passes_chunks and (not latest or latest.endswith(EVENT_ENDS))
        return event if at_boundary else b""

    def _unexpected(self, error: Exception) -> ProxyError:
        """Log an error that nobody foresaw; return what the client is told."""
        request_id = self.request_id().decode()
        logger.opt(exception=error).bind(request_id=request_id).error("request {} failed", request_id)
        return ProxyError("the proxy failed to handle this request; its log says why")

    def _work(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Go on in a task, which this exchange owns: an error in it ends the exchange."""
        self.task = spawn(self._owned(work), name)

    async def _owned(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except ProxyError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - the client is to hear of it, whatever it is
            self.fail(self._unexpected(error))

    def _backend(self) -> str:
        name = self.destination.service_id if self.destination is not None else ""
        return f"the backend of {name!r}" if name else "the management API"

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()

    # Account: give everything back, let the connection go on, then record what happened.

    def pending(self) -> Pending:
        """Return what it waits for, once the request is read."""
        destination = self.destination
        if destination is None or self.status == 101:
            return UNLIMITED
        if self.phase is FORWARDING:
            return Wait.BACKEND, self.received, destination.response_timeout
        if self.phase is RESPONDING:
            progress = self.sent if self.rewriter is None else self.rewriter.taken
            return Wait.STREAM, progress, destination.stream_idle_timeout
        return UNLIMITED

    def live(self, now: float) -> LiveRequest | None:
        """Return how far a request to a model has come; None for any other."""
        resolver = self.resolver
        if resolver is None:
            return None
        return LiveRequest(
            self.request_id().decode(),
            resolver.endpoint.path,
            resolver.model,
            self.destination.service_id if self.destination is not None else "",
            PROGRESS.get(self.phase, Progress.STREAMING),
            self.shared.epoch + self.started,
            now - self.started,
            self.sent,
        )

    def _finish(self, outcome: Outcome) -> None:
        """End. Runs once, whatever happened."""
        self.phase = DONE
        if (task := self.task) is not None:
            self.task = None
            if not task.done() and task is not asyncio.current_task():
                task.cancel()
        shared = self.shared
        now = shared.now()
        tokens = NO_TOKENS
        if self.usage is not None:
            try:
                tokens = self.usage.tokens()
            except Exception as error:  # noqa: BLE001 - an engine's strange answer must not keep a lease or a limit
                logger.opt(exception=error).error("the tokens of a response could not be counted")
        if self.held:
            self._release_held()
        if self.meters:
            leave(self.meters, now, self._charge(tokens) if self.plan.principal.counts_tokens else 0)
        if self.lease is not None:
            try:
                shared.admission.release(self.lease, outcome)
            except Exception as error:  # noqa: BLE001 - the connection must go on
                logger.opt(exception=error).error(
                    "a lease on {} could not be given back", self.lease.service_id
                )
        self.client.handler_done(self)
        try:
            self._record(now - self.started, tokens)
        except Exception as error:  # noqa: BLE001 - what is only recorded must not hurt what is served
            logger.opt(exception=error).error("a finished request could not be recorded")

    def _charge(self, tokens: tuple[int, int]) -> int:
        """Return the tokens to charge; a request that was refused costs only what its engine reports."""
        refused = self.status >= 400 and self.status not in (CLIENT_GONE, BROKEN_OFF)
        if self.lease is None or refused:
            return known(tokens)
        path = self.plan.path if self.resolver is None else self.resolver.path
        return charged(tokens, path, self.received, self.sent)

    def _record(self, seconds: float, tokens: tuple[int, int]) -> None:
        destination, resolver, recorder = self.destination, self.resolver, self.shared.recorder
        service_id, engine = (
            (destination.service_id, destination.engine) if destination is not None else ("", "")
        )
        if resolver is None:
            recorder.exchange(service_id, self.status, seconds, self.first_byte, self.received, self.sent)
            return
        plan, traceparent, waited = self.plan, self.traceparent, self.waited
        if waited < 0:
            waited = seconds
        recorder.finished(
            tuple.__new__(
                RequestRecord,
                (
                    (self.id or self.request_id()).decode(),
                    plan.principal.key_id,
                    resolver.endpoint.path,
                    resolver.model,
                    service_id,
                    engine,
                    resolver.streaming,
                    self.status,
                    self.error.code if self.error is not None else "",
                    self.shared.epoch + self.started,
                    seconds,
                    waited,
                    self.first_byte,
                    self.first_token,
                    tokens[0],
                    tokens[1],
                    self.received,
                    self.sent,
                    traceparent[13:-2].decode("latin-1") if traceparent else "",
                    plan.traceparent.decode("latin-1") if traceparent else "",
                ),
            )
        )
