"""A request to a model: which one is told by its body, and its answer may have to be translated."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import (
    ProxyError,
    UnsupportedEndpointError,
    UpstreamInvalidError,
)
from ai_proxy.core.ports import Clock, Tracing
from ai_proxy.core.routing import MAX_NAME, ModelRoute
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import Lease, Outcome
from ai_proxy.core.usage import LiveRequest, Progress, RequestRecord
from ai_proxy.dialects.ollama import Unload, strip_latest
from ai_proxy.dialects.translation import Translation
from ai_proxy.gateway import body as bodies
from ai_proxy.gateway.entries import Entry
from ai_proxy.gateway.exchange import ADMITTING, DONE, FORWARDING, READING, RESPONDING, Exchange
from ai_proxy.gateway.pool import Pool
from ai_proxy.gateway.request import Request
from ai_proxy.gateway.respond import JSON
from ai_proxy.gateway.route import Destination, Target
from ai_proxy.gateway.shaping import Shaper, in_header, is_event_stream
from ai_proxy.gateway.tokens import KEPT, count_tokens, known
from ai_proxy.gateway.wire import origin_form
from ai_proxy.platform.tasks import spawn

if TYPE_CHECKING:
    from ai_proxy.gateway.connection import ClientConnection
    from ai_proxy.gateway.listener import Gateway

CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key", b"cookie"})
"""Headers by which a client proves who it is: to the proxy, never to a backend."""
NOT_FORWARDED = CREDENTIALS | {b"content-type", b"accept-encoding"}
"""Headers that are replaced or left out: a compressed answer could not be read for its usage."""
PROGRESS = {READING: Progress.READING, ADMITTING: Progress.WAITING, FORWARDING: Progress.FORWARDING}
EVENT_ENDS = (b"\n\n\r\n", b"\r\n\r\n\r\n")
"""How a piece ends where both an event and the chunk that holds it are complete."""


class ModelExchange(Exchange):
    """One request to a model and its response.

    Most are passed on as they are, in both directions. A response is *shaped* when it is written anew:
    because it is translated, or because its client was told before, under a head of our own, of a load.
    """

    __slots__ = (
        "counted",
        "entry",
        "error_code",
        "events",
        "first",
        "first_token",
        "framed",
        "last",
        "model",
        "original",
        "route_to",
        "service_id",
        "shaper",
        "streaming",
        "traceparent",
        "translation",
        "waited",
        "warnings",
    )

    def __init__(
        self, client: "ClientConnection", gateway: "Gateway", request: Request, entry: Entry
    ) -> None:
        super().__init__(client, gateway, request)
        self.entry = entry
        self.model = self.service_id = ""
        self.streaming = entry.streams_unless_told
        self.route_to: ModelRoute | None = None
        self.original: bytes | bytearray = b""
        self.translation: Translation | None = None
        self.warnings: tuple[str, ...] = ()
        self.first = b""  # the first piece of the response
        self.last: deque[bytes] | None = None  # the last pieces, when there are several
        self.events = 0
        self.framed = False  # whether what is passed on as it is has chunks
        self.shaper: Shaper | None = None
        self.first_token = -1.0
        self.waited = 0.0  # for a lease, if there was none at once; negative as long as it waits
        self.error_code = ""
        self.traceparent = b""
        self.counted: tuple[int, int] | None = None

    def route(self) -> None:
        """Take note of what the head says; where the request goes is in its body."""
        self._read_head(JSON)
        self._limit(self.request.length)

    def _read_head(self, content_type: bytes) -> None:
        """Keep back what is not for backends, and say what the body is."""
        request = self.request
        self.path = origin_form(request.target)
        dropped = NOT_FORWARDED
        if self.gateway.tracing is not None:
            request.traceparent = request.header(b"traceparent")
            dropped |= {b"traceparent"}
        request.drop(dropped)
        request.lines += (b"content-type", b": ", content_type, b"\r\n")
        request.takes_credentials = True

    @property
    def begun(self) -> bool:
        """Whether the client has had the head of a response: it may be one of ours, from before a load."""
        return self.phase is RESPONDING or (self.shaper is not None and self.shaper.begun)

    @property
    def progress(self) -> int:
        """A number that changes whenever something comes of the response, be it told or not."""
        return self.sent if self.shaper is None else self.shaper.taken

    def begin(self) -> None:
        """Its turn has come: find out who is asked, and go on like any other exchange."""
        if self.gateway.tracing is not None and not self.traceparent:
            self._trace(self.gateway.tracing)
        if self.error is None:
            try:
                self._resolve()
            except ProxyError as error:
                self.error = error
                if not self.is_ready:
                    return  # until the rest of a small upload has come
            if self.phase is DONE:
                return
        super().begin()

    def _trace(self, tracing: Tracing) -> None:
        """Have the backend's spans hang on ours."""
        passed_on = tracing.begin(self.request.traceparent) or self.request.traceparent
        if passed_on:
            self.traceparent = b"traceparent: %b\r\n" % passed_on

    def live(self, now: float) -> LiveRequest:
        """Return how far it has come."""
        return LiveRequest(
            self.request_id().decode(),
            self.entry.path,
            self.model,
            self.route_to.offer.service.id if self.route_to is not None else "",
            PROGRESS.get(self.phase, Progress.STREAMING),
            self.gateway.epoch + self.started,
            now - self.started,
            self.sent,
        )

    def _resolve(self) -> None:
        """Find who answers, and fit the request to it; most are passed on as they are."""
        table, body = self.gateway.table, self.body
        try:
            plain = table.plain(body)
        except bodies.UNREADABLE:
            self._resolve_fully()
            return
        target = table.targets.get(plain.model)
        if (
            target is None
            or self.entry.path not in target.unchanged
            or (target.text_only and bodies.may_have_parts(body))
        ):
            self._resolve_fully()
            return
        self.model = target.route.name
        self.streaming = plain.stream is True
        self._choose(target)

    def _resolve_fully(self) -> None:
        """Find who answers, and fit the request to it where it has to be."""
        self.body = self.original = self.original or self.body
        if self.entry.unload is not None and self._unloads(self.entry.unload):
            return
        prompt = bodies.read(self.body, streams_unless_told=self.entry.streams_unless_told)
        self.streaming = prompt.streamed
        target = self._find(prompt.model)
        self._choose_path(target)
        if self.translation is not None:
            self.body = self.translation.request
            prompt = bodies.read(self.body)
        bodies.check_modalities(self.body, prompt, target.route)
        self._fit(prompt, target.route)

    def _fit(self, prompt: bodies.Prompt, route: ModelRoute) -> None:
        """Change the request so that the engine takes it."""
        fitted, self.warnings = bodies.fit(prompt, route)
        if fitted is not None:
            self.body = fitted
        if self.warnings:
            logger.bind(request_id=self.request_id().decode(), service=route.offer.service.id).info(
                "{}: {}", self.entry.path, "; ".join(self.warnings)
            )

    def _unloads(self, told: Callable[[str, bytes, Clock], Unload | None]) -> bool:
        """Unload a model, if that is all that is asked, and answer."""
        order = told(self.entry.path, bytes(self.body), self.gateway.clock)
        if order is None:
            return False
        self.gateway.admission.unload(self._find(order.model).destination.service_id)
        self._shape().write_whole(200, order.answer)
        super().response_done()
        return True

    def _find(self, model: str) -> Target:
        """Find the model that is asked for."""
        self.model = model[:MAX_NAME]
        target = self._look_up(model)
        self._choose(target)
        return target

    def _choose(self, target: Target) -> None:
        """Ask this model, if the caller may."""
        principal = self.request.principal
        if principal.limited:
            principal.check_model(*target.route.names)
        self.route_to = target.route
        self.destination = target.destination
        self.service_id = target.destination.service_id

    def _look_up(self, model: str) -> Target:
        table = self.gateway.table
        target = table.targets.get(model)
        if target is None:
            target = table.find(strip_latest(model) if self.entry.native == "ollama" else model)
        return target

    def _choose_path(self, target: Target) -> None:
        """Pass the request on as it is where its engine understands it, else translate it."""
        entry = self.entry
        if entry.path not in target.understood and entry.native != target.route.offer.service.engine:
            self._translate(target.route)

    def _translate(self, route: ModelRoute) -> None:
        """Make of the request one that the engine understands.

        Raises:
            UnsupportedEndpointError: Nothing can, or the engine lacks what it would be asked for.
        """
        entry, abilities = self.entry, route.offer.abilities
        if entry.translate is not None:
            self.translation = entry.translate(
                bytes(self.original), self.request_id().decode(), self.gateway.clock
            )
            self._shape()
            self.path = self.translation.path.encode()
            self.streaming = self.translation.streamed
            if Endpoint(self.translation.path) in abilities.endpoints:
                return
        raise UnsupportedEndpointError(
            f"{abilities.title}, which answers for {self.model!r}, has no {entry.path}"
        )

    async def _admit(self, destination: Destination) -> None:
        self.waited = -1.0
        service_id = destination.service_id
        teller = spawn(self._tell_of_load(service_id), "heartbeat") if self._hears_of_loads() else None
        try:
            lease = await self.gateway.admission.admit(Ask(service_id))
        except ProxyError as error:
            self.fail(error)
            return
        finally:
            if teller is not None:
                teller.cancel()
        self.lease = lease  # at once: from here on it is given back whatever happens
        self.waited = self.gateway.now() - self.started
        try:
            self._resolve_again(lease)
        except ProxyError as error:
            self.fail(error)
            return
        self.original = b""
        self._forward(self.destination or destination, lease)

    def _hears_of_loads(self) -> bool:
        """Tell whether the client of a stream wants to be told that there is life."""
        route = self.route_to
        if not self.streaming or not self.entry.heartbeat or self.request.is_http10:
            return False
        return route is not None and route.offer.service.heartbeat

    async def _tell_of_load(self, service_id: str) -> None:
        """Tell, from time to time, of a load under way; until cancelled."""
        while True:
            await asyncio.sleep(self.gateway.heartbeat)
            expected = self.gateway.admission.load_time(service_id)
            self._shape().tell_of_load(service_id, self.gateway.now() - self.started, expected)

    def _shape(self) -> Shaper:
        """Return what writes the response, which is not passed on as it comes."""
        self.unframed = True
        self.shaper = self.shaper or Shaper(self)
        return self.shaper

    def _resolve_again(self, lease: Lease) -> None:
        """What the engine calls its models, and what it can do, may be known only since it runs.

        A model that has moved to another service meanwhile is still had from the one that was waited for.
        """
        route = self.route_to
        target = self._look_up(route.name if route is not None else self.model)
        if target.route is route or target.destination.service_id != lease.service_id:
            return
        self.path = origin_form(self.request.target)
        self.translation, self.warnings = None, ()
        if self.shaper is not None and not self.shaper.begun:
            self.shaper, self.unframed = None, self.request.is_http10
        self.body = self.original or self.body
        self._resolve()

    def _render(self, pool: Pool) -> bytes:
        """Return the request as it goes to the backend."""
        request, body = self.request, self.body
        known = request.rendered_for == (pool, self.destination, self.path)
        head = request.rendered if known else self._render_head(pool)
        return b"".join((head, self.traceparent, b"content-length: %d\r\n\r\n" % len(body), body))

    def _render_head(self, pool: Pool) -> bytes:
        """Return all of the head but its framing, and keep it for requests that go the same way."""
        head = super()._render_head(pool)
        self.request.rendered_for = (pool, self.destination, self.path)
        return head

    def response_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Send the head of the response on, or have another written in its place."""
        shaper = self.shaper
        if shaper is not None:
            self._shaping(shaper, shaper.head, status, head, body)
            return
        if head[-1] == b"transfer-encoding: chunked\r\n":
            if self._is_unasked(status, head):
                detail = f"{self._who()} answers with a stream that nobody asked for"
                self.fail(UpstreamInvalidError(detail), Outcome.BROKEN)
                return
            self.framed = self.streaming
        self.original = b""
        if self.warnings:
            head.append(self._warning())
        super().response_head(status, head, body)
        if body:
            self.first, self.first_token = body, self.first_byte
            if self.streaming:
                self.events = body.count(b"data:")

    def _is_unasked(self, status: int, head: list[bytes]) -> bool:
        """Tell whether a response in chunks is a stream that was not asked for; an upload may have asked."""
        return status == 200 and not (self.streaming or self.streamed) and is_event_stream(head)

    def send_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Send a head, with the warnings there are."""
        if self.warnings:
            head.append(self._warning())
        super().response_head(status, head, body)

    def _warning(self) -> bytes:
        return b"x-ai-proxy-warning: %b\r\n" % in_header(self.warnings)

    def response_body(self, data: bytes) -> None:
        """Send bytes of the body on, as they are if they may."""
        shaper = self.shaper
        if shaper is None:
            self.see(data)
            self.sent += len(data)
            self.client.transport.write(data)
        else:
            self._shaping(shaper, shaper.body, data)

    def see(self, data: bytes) -> None:
        """Take note of what passes, for the tokens in it."""
        if self.streaming:
            self.events += data.count(b"data:")
        if self.last is not None:
            self.last.append(data)
        elif self.first:
            self.last = deque((self.first, data), KEPT)
        else:
            self.first = data
            self.first_token = self.gateway.now() - self.started

    def response_done(self) -> None:
        """The response is complete, or all that the backend says."""
        if self.shaper is not None:
            self._shaping(self.shaper, self.shaper.finish)
        if self.phase is not DONE:
            super().response_done()

    def _shaping[*Pieces](self, shaper: Shaper, work: Callable[[*Pieces], None], *pieces: *Pieces) -> None:
        """Write some of a response, or fail where the engine's cannot be made into one."""
        if self.phase is DONE:
            return
        try:
            work(*pieces)
        except ProxyError as error:
            self.fail(error, shaper.outcome)

    def fail(self, error: ProxyError, outcome: Outcome = Outcome.OK) -> None:
        """End with an error; in a stream, it is told where that can be done without breaking the framing."""
        if self.phase is DONE:
            return
        self.error_code = error.code
        if self.begun and self.streaming and (event := self._last_event(error)):
            self.client.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        super().fail(error, outcome)

    def _last_event(self, error: ProxyError) -> bytes:
        """Return what tells of an error in a stream; empty where nothing can be said any more."""
        if self.request.is_http10:
            return b""
        if self.shaper is not None:
            return self.shaper.last_event(error)
        return self.entry.dialect.event(error, self.request_id().decode()) if self._is_at_boundary() else b""

    def _is_at_boundary(self) -> bool:
        """Tell whether what the client has seen so far ends with an event."""
        latest = self.last[-1] if self.last is not None else self.first
        return self.framed and (not latest or latest.endswith(EVENT_ENDS))

    def tokens_used(self) -> int:
        """Return what counts against a limit of tokens."""
        return known(self.tokens())

    def tokens(self) -> tuple[int, int]:
        """Return the tokens of prompt and answer, UNKNOWN for what cannot be told; for when it is over."""
        if self.counted is None:
            self.counted = count_tokens(self.first, self.last, self.events)
            self.first, self.last = b"", None
        return self.counted

    def _record(self, seconds: float) -> None:
        """Record what the request took."""
        route = self.route_to
        waited = seconds if self.waited < 0 else self.waited
        tokens_in, tokens_out = self.tokens()
        record = RequestRecord(
            self.request_id().decode("latin-1"),
            self.request.principal.key_id,
            self.entry.path,
            self.model,
            self.service_id,
            route.offer.service.engine if route is not None else "",
            self.streaming,
            self.status,
            self.error_code,
            self.gateway.epoch + self.started,
            seconds,
            waited,
            self.first_byte,
            self.first_token,
            tokens_in,
            tokens_out,
            waited > 0,
            self.received,
            self.sent,
            self.traceparent[13:-2].decode("latin-1"),
            self.request.traceparent.decode("latin-1"),
        )
        self.gateway.recorder.finished(record)
