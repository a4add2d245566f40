"""A request to a model: which one is told by its body, and its answer may have to be translated."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from loguru import logger

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import (
    ProxyError,
    UnsupportedEndpointError,
    UpstreamInvalidError,
)
from ai_proxy.core.ports import Clock, Tracing
from ai_proxy.core.routing import ModelRoute
from ai_proxy.core.service import Lease, Outcome
from ai_proxy.core.usage import Inference, LiveRequest, Progress
from ai_proxy.dialects.ollama import Unload, strip_latest
from ai_proxy.dialects.translation import Translation
from ai_proxy.gateway import body as bodies
from ai_proxy.gateway.entries import Entry
from ai_proxy.gateway.exchange import ADMITTING, DONE, FORWARDING, READING, RESPONDING, Exchange
from ai_proxy.gateway.multipart import ModelField, boundary_of
from ai_proxy.gateway.pool import Pool
from ai_proxy.gateway.request import Request
from ai_proxy.gateway.respond import refusal
from ai_proxy.gateway.route import Destination
from ai_proxy.gateway.shaping import Shaper, in_header, is_event_stream
from ai_proxy.gateway.tokens import Usage
from ai_proxy.tasks import cancel, spawn

if TYPE_CHECKING:
    from ai_proxy.gateway.connection import ClientConnection
    from ai_proxy.gateway.listener import Gateway

CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key"})
"""Headers by which a client proves who it is: to the proxy, never to a backend."""
REPLACED = CREDENTIALS | {b"accept-encoding"}
"""Not forwarded: a compressed answer could not be read for its usage."""
JSON = b"application/json"
PROGRESS = {READING: Progress.READING, ADMITTING: Progress.WAITING, FORWARDING: Progress.FORWARDING}
EVENT_ENDS = (b"\n\n\r\n", b"\r\n\r\n\r\n")
"""How a piece ends where both an event and the chunk that holds it are complete."""


class ModelExchange(Exchange):
    """One request to a model and its response.

    Most are passed on as they are, in both directions. A response is *shaped* when it is written anew:
    because it is translated, or because its client was told before, under a head of our own, of a load.
    """

    __slots__ = (
        "admitted",
        "entry",
        "error_code",
        "field",
        "first_token",
        "framed",
        "id",
        "loaded",
        "model",
        "original",
        "route_to",
        "shaper",
        "streaming",
        "traceparent",
        "translation",
        "usage",
        "warnings",
    )

    def __init__(
        self, client: "ClientConnection", gateway: "Gateway", request: Request, entry: Entry
    ) -> None:
        super().__init__(client, gateway, request)
        self.entry = entry
        self.model = ""
        self.streaming = entry.streams_unless_told
        self.route_to: ModelRoute | None = None
        self.field: ModelField | None = None
        self.original: bytes | bytearray = b""
        self.translation: Translation | None = None
        self.warnings: tuple[str, ...] = ()
        self.usage = Usage()
        self.framed = False  # whether what is passed on as it is has chunks
        self.shaper: Shaper | None = None
        self.first_token = -1.0
        self.id = b""
        self.admitted = -1.0
        self.loaded = False
        self.error_code = ""
        self.traceparent = b""

    def route(self) -> None:
        """Take note of what the head says; where the request goes is in its body."""
        request = self.request
        self.path = request.target
        if self.gateway.tracing is not None:
            request.traceparent = request.header(b"traceparent")
            request.drop({b"traceparent"})
        boundary = boundary_of(request.header(b"content-type"))
        if boundary is None:
            request.drop(REPLACED | {b"content-type"})
            request.lines += (b"content-type", b": ", JSON, b"\r\n")
            self._limit(request.length)
        else:
            request.drop(REPLACED)
            self.streamed = True
            self.field = ModelField(boundary)
            self.streaming = False

    def request_id(self) -> bytes:
        """Return the request's id: the client's own, if it gave a sane one, else a new one."""
        if not self.id:
            self.id = super().request_id()
        return self.id

    @property
    def is_ready(self) -> bool:
        """Whether enough of the request is here to begin: the model has to be known."""
        if self.field is not None and self.error is None and not self.request_done:
            return self.field.model is not None
        return super().is_ready

    def add_body(self, data: bytes) -> None:
        """Take a piece of the request's body; of an upload, look for the model first."""
        field = self.field
        if field is None or field.model is not None:
            super().add_body(data)
            return
        self.received += len(data)
        if self.error is None:
            try:
                field.feed(data)
            except ProxyError as error:
                self.error = error

    def end_body(self) -> None:
        """The request has arrived whole."""
        if self.field is not None and self.error is None:
            try:
                self.field.end()
            except ProxyError as error:
                self.error = error
        super().end_body()

    def begin(self) -> None:
        """Its turn has come: find out who is asked, and go on like any other exchange."""
        if self.gateway.tracing is not None:
            self._trace(self.gateway.tracing)
        if self.error is None:
            try:
                self._resolve()
            except ProxyError as error:
                self.error = error
        if self.phase is DONE:
            return
        super().begin()
        if self.lease is not None:
            self.admitted = self.gateway.now() - self.started

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
        """Find who answers, and fit the request to it."""
        if self.field is not None:
            self._resolve_upload(self.field)
            return
        self.original = self.body
        if self.entry.unload is not None and self._unloads(self.entry.unload):
            return
        prompt = bodies.read(self.body, streams_unless_told=self.entry.streams_unless_told)
        self.model, self.streaming = prompt.model, prompt.streamed
        route = self._find(prompt.model)
        self._choose_path(route)
        if self.translation is not None:
            self.body = self.translation.request
            prompt = bodies.read(self.body)
            prompt = bodies.Prompt(self.model, prompt.streamed, prompt.fields)
        bodies.check_modalities(self.body, prompt, route)
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
        self.model = order.model
        self.gateway.admission.unload(self._find(order.model).offer.service.id)
        self._shape().write_whole(200, order.answer)
        super().response_done()
        return True

    def _resolve_upload(self, field: ModelField) -> None:
        """Find who answers an upload, and let the part of it go that was held back."""
        self.model = field.model or ""
        route = self._find(self.model)
        self._choose_path(route)
        held = bytes(field.held) if route.target == self.model else field.renamed(route.target)
        self.request.length += (len(held) - len(field.held)) * (not self.request.chunked)
        begin = b"%x\r\n%b\r\n" % (len(held), held) if self.request.chunked else held
        self.body = bytearray(begin + self.body)

    def _find(self, model: str) -> ModelRoute:
        table = self.gateway.table
        if self.entry.native == "ollama" and model not in table.models.routes:
            model = strip_latest(model)
        self.route_to = route = table.models.find(model)
        self.destination = table.services[route.offer.service.id.encode()]
        return route

    def _choose_path(self, route: ModelRoute) -> None:
        """Pass the request on as it is where its engine understands it, else translate it.

        Raises:
            UnsupportedEndpointError: The engine has no such endpoint.
        """
        entry, abilities = self.entry, route.offer.abilities
        if entry.native == route.offer.service.engine or entry.endpoint in abilities.endpoints:
            self.path = self.request.target
            return
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
        self.loaded = True
        try:
            lease = await self._telling(self.gateway.admission.admit(destination.service_id))
        except ProxyError as error:
            self.fail(error)
            return
        self.lease = lease
        self.admitted = self.gateway.now() - self.started
        try:
            self._resolve_again()
        except ProxyError as error:
            self.fail(error)
            return
        self._forward(self.destination or destination, lease)

    async def _telling(self, admission: Awaitable[Lease]) -> Lease:
        """Wait for a lease; meanwhile tell the client of a stream that there is life."""
        route = self.route_to
        if not self.streaming or route is None or not route.offer.service.heartbeat:
            return await admission
        if not self.entry.heartbeat or self.request.is_http10:
            return await admission
        waiting = spawn(_await(admission), f"admit to {route.offer.service.id}")
        try:
            while not (await asyncio.wait({waiting}, timeout=self.gateway.heartbeat))[0]:
                self._tell_of_load(route.offer.service.id)
            return waiting.result()
        finally:
            await cancel(waiting)

    def _tell_of_load(self, service_id: str) -> None:
        expected = self.gateway.admission.load_time(service_id)
        self._shape().tell_of_load(service_id, self.gateway.now() - self.started, expected)

    def _shape(self) -> Shaper:
        """Return what writes the response, which is not passed on as it comes."""
        self.unframed = True
        self.shaper = self.shaper or Shaper(self)
        return self.shaper

    def _resolve_again(self) -> None:
        """What the engine calls its models may be known only since it runs."""
        if self.field is None and self.route_to is not self.gateway.table.models.routes.get(self.model):
            self.body = self.original
            self._resolve()

    def _send(self, pool: Pool) -> None:
        super()._send(pool)
        if self.shaper is not None and self.shaper.begun:
            self.phase = RESPONDING

    def _render(self, pool: Pool) -> bytes:
        """Return the request as it goes to the backend, with what is here of its body."""
        request = self.request
        if request.rendered_for is not pool or request.rendered_path != self.path:
            request.rendered_path = self.path
            self._render_head(pool)
            destination = self.destination
            request.rendered += destination.credentials if destination is not None else b""
        length = len(self.body)
        if self.streamed:
            length = -1 if request.chunked else request.length
        return b"".join((request.rendered, self.traceparent, request.framing(length), self.body))

    def response_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Send the head of the response on, or have another written in its place."""
        shaper = self.shaper
        if shaper is not None:
            self._shaping(lambda: shaper.head(status, head, body))
        elif not self.streaming and status == 200 and self.field is None and is_event_stream(head):
            detail = f"{self._who()} answers with a stream that nobody asked for"
            self.fail(UpstreamInvalidError(detail), Outcome.BROKEN)
        else:
            self.framed = self.streaming and head[-1] == b"transfer-encoding: chunked\r\n"
            if body:
                self.see(body)
            self.send_head(status, head, body)

    def send_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Send a head, with the warnings there are."""
        if self.warnings:
            head.append(b"x-ai-proxy-warning: %b\r\n" % in_header(self.warnings))
        super().response_head(status, head, body)

    def response_body(self, data: bytes) -> None:
        """Send bytes of the body on, as they are if they may."""
        shaper = self.shaper
        if shaper is None:
            self.see(data)
            self.sent += len(data)
            self.client.transport.write(data)
        else:
            self._shaping(lambda: shaper.body(data))

    def see(self, data: bytes) -> None:
        """Take note of what passes, for the tokens in it."""
        usage = self.usage
        usage.recent.append(data)
        if self.streaming:
            usage.events += data.count(b"data:")
        if not usage.first:
            usage.first = data
            self.first_token = self.gateway.now() - self.started

    def response_done(self) -> None:
        """The response is complete, or all that the backend says."""
        if self.shaper is not None:
            self._shaping(self.shaper.finish)
        if self.phase is not DONE:
            super().response_done()

    def _shaping(self, work: Callable[[], None]) -> None:
        """Write some of a response, or fail where the engine's cannot be made into one."""
        if self.phase is DONE:
            return
        try:
            work()
        except ProxyError as error:
            self.fail(error, Outcome.BROKEN)

    def fail(self, error: ProxyError, outcome: Outcome = Outcome.OK) -> None:
        """End with an error; in a stream, it is told where that can be done without breaking the framing."""
        if self.phase is DONE:
            return
        self.error_code = error.code
        if self.phase is RESPONDING and self.streaming and (event := self._last_event(error)):
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
        recent = self.usage.recent
        return self.framed and (not recent or recent[-1].endswith(EVENT_ENDS))

    def _refusal(self, error: ProxyError, *, head_only: bool) -> tuple[bytes, int]:
        request_id = self.request_id()
        body = self.entry.dialect.body(error, request_id.decode())
        return refusal(error, request_id, body, JSON, head_only=head_only, close=self.close)

    def _finish(self, outcome: Outcome) -> None:
        """Account for the request, beside what is accounted for every exchange."""
        gateway, route = self.gateway, self.route_to
        prompt, answer = self.usage.count()
        seconds = gateway.now() - self.started
        gateway.recorder.inference(
            Inference(
                self.request_id().decode(),
                self.entry.path,
                self.model,
                route.offer.service.id if route is not None else "",
                route.offer.service.engine if route is not None else "",
                self.streaming,
                self.status,
                self.error_code,
                gateway.epoch + self.started,
                seconds,
                self.admitted if self.admitted >= 0 else seconds,
                self.first_token,
                prompt,
                answer,
                self.loaded,
                self.traceparent[13:-2].decode("latin-1"),
            )
        )
        super()._finish(outcome)


async def _await[T](work: Awaitable[T]) -> T:
    return await work
