"""A request to a model: which one is told by its body, and its answer may have to be translated."""

import asyncio
from collections.abc import Awaitable
from email.utils import formatdate
from typing import TYPE_CHECKING

from loguru import logger

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import (
    ProxyError,
    UnsupportedEndpointError,
    UpstreamClosedError,
    UpstreamInvalidError,
)
from ai_proxy.core.routing import ModelRoute
from ai_proxy.core.service import Lease, Outcome
from ai_proxy.core.usage import Inference
from ai_proxy.dialects.translation import Translation
from ai_proxy.gateway import body as bodies
from ai_proxy.gateway.entries import Entry
from ai_proxy.gateway.exchange import DONE, RESPONDING, Exchange
from ai_proxy.gateway.multipart import ModelField, boundary_of
from ai_proxy.gateway.pool import Pool
from ai_proxy.gateway.request import Request
from ai_proxy.gateway.respond import refusal
from ai_proxy.gateway.route import Destination
from ai_proxy.gateway.tokens import Usage
from ai_proxy.gateway.wire import status_line
from ai_proxy.tasks import cancel, spawn

if TYPE_CHECKING:
    from ai_proxy.gateway.connection import ClientConnection
    from ai_proxy.gateway.listener import Gateway

CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key"})
"""Headers by which a client proves who it is: to the proxy, never to a backend."""
REPLACED = CREDENTIALS | {b"accept-encoding"}
"""Not forwarded: a compressed answer could not be read for its usage."""
JSON = b"application/json"
EVENTS = b"text/event-stream"
MAX_WHOLE = 64 * 1024 * 1024
"""Most bytes of an answer that is translated as a whole."""
EVENT_ENDS = (b"\n\n\r\n", b"\r\n\r\n\r\n")
"""How a piece ends where both an event and the chunk that holds it are complete."""


class ModelExchange(Exchange):
    """One request to a model and its response.

    Most are passed on as they are, in both directions. A response is *shaped* when it is written anew:
    because it is translated, or because its client was told before, under a head of our own, of a load.
    """

    __slots__ = (
        "admitted",
        "begun",
        "collected",
        "engine_error",
        "entry",
        "error_code",
        "field",
        "first_token",
        "framed",
        "id",
        "loaded",
        "model",
        "original",
        "passing",
        "route_to",
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
        self.begun = False  # whether the head of a stream was sent before there was a lease
        self.passing = False  # whether a shaped response is passed on as it comes, not collected
        self.collected = bytearray()
        self.engine_error = b""
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
        if self.error is None:
            try:
                self._resolve()
            except ProxyError as error:
                self.error = error
        super().begin()
        if self.lease is not None:
            self.admitted = self.gateway.now() - self.started

    def _resolve(self) -> None:
        """Find who answers, and fit the request to it."""
        if self.field is not None:
            self._resolve_upload(self.field)
            return
        self.original = self.body
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
            self.translation = entry.translate(bytes(self.original))
            self.unframed = True
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
        if not self.begun:
            self.begun = self.unframed = True
            self._begin_stream(EVENTS)
        expected = self.gateway.admission.load_time(service_id)
        waited = self.gateway.now() - self.started
        of = f"/{expected:.0f}" if expected else ""
        self._write_chunk(f": loading {service_id} {waited:.0f}{of} s\n\n".encode())

    def _resolve_again(self) -> None:
        """What the engine calls its models may be known only since it runs."""
        if self.field is None and self.route_to is not self.gateway.table.models.routes.get(self.model):
            self.body = self.original
            self._resolve()

    def _send(self, pool: Pool) -> None:
        super()._send(pool)
        if self.begun:
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
        """Send the head of the response on, or write another in its place."""
        if self.translation is not None or self.begun:
            self._shape_head(status, head, body)
            return
        if not self.streaming and status == 200 and self.field is None and _is_event_stream(head):
            self.fail(
                UpstreamInvalidError(f"{self._who()} answers with a stream that nobody asked for"),
                Outcome.BROKEN,
            )
            return
        self.framed = self.streaming and head[-1] == b"transfer-encoding: chunked\r\n"
        if self.warnings:
            head.append(b"x-ai-proxy-warning: %b\r\n" % _header("; ".join(self.warnings)))
        if body:
            self._see(body)
        super().response_head(status, head, body)

    def response_body(self, data: bytes) -> None:
        """Send bytes of the body on, translated if need be."""
        if self.translation is None and not self.begun:
            self._see(data)
            self.sent += len(data)
            self.client.transport.write(data)
        elif self.phase is not DONE:
            self._shape_body(data)

    def _see(self, data: bytes) -> None:
        usage = self.usage
        usage.recent.append(data)
        if self.streaming:
            usage.events += data.count(b"data:")
        if not usage.first:
            usage.first = data
            self.first_token = self.gateway.now() - self.started

    def _shape_head(self, status: int, head: list[bytes], body: bytes) -> None:
        streams = (
            status == 200 and self.streaming and (_is_event_stream(head) or self.translation is not None)
        )
        if streams and not self.begun:
            self._begin_stream(self.translation.media_type if self.translation else EVENTS)
        self.passing = streams
        self.status = status
        if body:
            self._shape_body(body)

    def _begin_stream(self, media_type: bytes) -> None:
        """Write the head of a stream of our own."""
        self.phase = RESPONDING
        self.status = 200
        lines = [
            status_line(200),
            b"content-type: " + media_type,
            b"cache-control: no-cache",
            b"x-request-id: " + self.request_id(),
            b"date: " + formatdate(usegmt=True).encode(),
        ]
        if self.warnings:
            lines.append(b"x-ai-proxy-warning: " + _header("; ".join(self.warnings)))
        if not self.request.is_http10:
            lines.append(b"transfer-encoding: chunked")
        if self.close or self.gateway.closing or self.request.is_http10:
            self.close = True
            lines.append(b"connection: close")
        self.client.transport.write(b"\r\n".join([*lines, b"", b""]))

    def _shape_body(self, data: bytes) -> None:
        self._see(data)
        if not self.passing:
            self.collected += data
            if len(self.collected) > MAX_WHOLE:
                self.fail(UpstreamInvalidError(f"{self._who()} answers with too much"), Outcome.BROKEN)
        elif self.translation is None:
            self._write_chunk(data)
        else:
            try:
                self._write_chunk(self.translation.feed(data))
            except ProxyError as error:
                self.fail(error, Outcome.BROKEN)

    def _write_chunk(self, data: bytes) -> None:
        if data:
            self.sent += len(data)
            framed = data if self.request.is_http10 else b"%x\r\n%b\r\n" % (len(data), data)
            self.client.transport.write(framed)

    def response_done(self) -> None:
        """The response is complete, or all that the backend says."""
        if self.phase is DONE:
            return
        if self.translation is not None or self.begun:
            try:
                self._finish_shaped()
            except ProxyError as error:
                self.fail(error, Outcome.BROKEN)
                return
        super().response_done()

    def _finish_shaped(self) -> None:
        """Write the end of a shaped response.

        Raises:
            ProxyError: It has no good end.
        """
        translation = self.translation
        if self.passing:
            end = translation.finish() if translation is not None else b""
            if end is None:
                raise UpstreamClosedError(f"{self._who()} ended its answer too early")
            self._write_chunk(end)
            if not self.request.is_http10:
                self.client.transport.write(b"0\r\n\r\n")
        elif self.begun:
            self.engine_error = _as_event(self.status, bytes(self.collected))
            raise UpstreamInvalidError(f"{self._who()}: {_complaint(self.status, bytes(self.collected))}")
        elif translation is not None:
            body = bytes(self.collected)
            whole = translation.whole(body) if self.status == 200 else translation.refusal(self.status, body)
            self._write_whole(whole)

    def _write_whole(self, body: bytes) -> None:
        """Write a translated response."""
        head = [b"HTTP/1.1 %d \r\n" % self.status, b"content-type: application/json\r\n"]
        head.append(b"content-length: %d\r\n" % len(body))
        if self.warnings:
            head.append(b"x-ai-proxy-warning: %b\r\n" % _header("; ".join(self.warnings)))
        super().response_head(self.status, head, body)

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
        if self.translation is not None:
            return self.translation.failure(error)
        return self.engine_error or (
            self.entry.dialect.error_event(error, self.request_id().decode())
            if self._is_at_boundary()
            else b""
        )

    def _is_at_boundary(self) -> bool:
        """Tell whether what the client has seen so far ends with an event."""
        recent = self.usage.recent
        if self.begun:
            return not self.passing or not recent or recent[-1].endswith((b"\n\n", b"\r\n\r\n"))
        return self.framed and (not recent or recent[-1].endswith(EVENT_ENDS))

    def _refusal(self, error: ProxyError, *, head_only: bool) -> tuple[bytes, int]:
        request_id = self.request_id()
        body = self.entry.dialect.error_body(error, request_id.decode())
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


def _is_event_stream(head: list[bytes]) -> bool:
    return EVENTS in b"".join(head).lower()


def _header(text: str) -> bytes:
    r"""Return what may stand in a header.

    >>> _header("a\r\nb")
    b'a  b'
    """
    return text.replace("\r", " ").replace("\n", " ").encode("ascii", "replace")


def _as_event(status: int, body: bytes) -> bytes:
    r"""Return an engine's own error as an event of a stream; empty when it is not one.

    >>> _as_event(400, b'{"error": {\n"message": "no"}}')
    b'data: {"error": {"message": "no"}}\n\n'
    >>> _as_event(200, b"{}"), _as_event(500, b"<html>")
    (b'', b'')
    """
    if status == 200 or not body.lstrip().startswith(b"{"):
        return b""
    return b"data: %b\n\n" % b"".join(body.splitlines())


def _complaint(status: int, body: bytes) -> str:
    """Say what an answer says that came where a stream was expected."""
    if status == 200:
        return "it answers without the stream that was asked for"
    return f"it answers with status {status}: {body[:500].decode('utf-8', 'replace')}"


async def _await[T](work: Awaitable[T]) -> T:
    return await work
