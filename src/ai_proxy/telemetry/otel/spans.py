"""Traces of sampled requests to models, and of starts and stops of services.

Spans are made after the end, with the times of the past, so that requests do not wait for them. Attributes
follow the GenAI semantic conventions where these have one.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from collections.abc import Iterator, Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.ports import Tracing
from ai_proxy.core.usage import RequestRecord
from ai_proxy.telemetry.operations import Operation
from ai_proxy.telemetry.otel.traceparent import TraceContext, parse

OPERATIONS: Mapping[str, str] = {
    Endpoint.CHAT: "chat",
    Endpoint.RESPONSES: "chat",
    Endpoint.MESSAGES: "chat",
    "/api/chat": "chat",
    Endpoint.COMPLETIONS: "text_completion",
    "/api/generate": "text_completion",
    Endpoint.EMBEDDINGS: "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
    Endpoint.RERANK: "rerank",
    Endpoint.COUNT_TOKENS: "count_tokens",
    Endpoint.TRANSCRIPTIONS: "transcription",
    Endpoint.TRANSLATIONS: "translation",
    Endpoint.SPEECH: "speech",
    Endpoint.IMAGES: "image_generation",
    Endpoint.IMAGE_EDITS: "image_edit",
}
"""`gen_ai.operation.name` by requested path; the first three names are those of the conventions."""

OTHER_OPERATION = "request"

SHORTEST_WAIT = 0.001
"""Seconds; a shorter wait has no span."""


class GivenIds(RandomIdGenerator):
    """Gives the next span the ids that were set for it, and random ids to all others."""

    def __init__(self) -> None:
        self._trace_id = 0
        self._span_id = 0

    def set_next(self, context: TraceContext) -> None:
        """Set the ids of the next span."""
        self._trace_id, self._span_id = context.trace_id, context.span_id

    def generate_trace_id(self) -> int:
        """Return the trace id of a span without a parent."""
        trace_id, self._trace_id = self._trace_id, 0
        return trace_id or super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Return the id of a span."""
        span_id, self._span_id, self._trace_id = self._span_id, 0, 0
        return span_id or super().generate_span_id()


class Spans:
    """Makes spans of finished requests and operations.

    Args:
        provider: Keeps every span, and takes ids from `ids`.
        ids: The provider's.
        tracing: Decides whether the trace of a start or stop is kept.
        host: Where the proxy listens.
    """

    def __init__(self, provider: TracerProvider, ids: GivenIds, tracing: Tracing, host: str) -> None:
        self._tracer = provider.get_tracer("ai_proxy")
        self._ids = ids
        self._tracing = tracing
        self._host = host

    def request(self, record: RequestRecord) -> None:
        """Make the trace of a finished request, if it is sampled."""
        passed_on = record.traceparent
        if passed_on.endswith("-00") or passed_on == record.parent:
            return  # not sampled: marked so by this proxy, or the client's own was forwarded
        own = parse(passed_on.encode(errors="replace"))
        if own is None or not own.sampled:
            return
        parent = parse(record.parent.encode(errors="replace"))
        span = self._begin(
            request_name(record),
            own,
            parent if parent is not None and parent.trace_id == own.trace_id else None,
            record.started,
            {"server.address": self._host, **request_attributes(record)},
            SpanKind.SERVER,
        )
        within = trace.set_span_in_context(span)
        for name, begins, ends in request_parts(record):
            self._part(name, within, record.started + begins, record.started + ends, {})
        if record.streamed and record.first_token >= 0:
            span.add_event("first token", timestamp=_ns(record.started + record.first_token))
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR, record.error or None))
        span.end(_ns(record.started + record.seconds))

    def operation(self, operation: Operation) -> None:
        """Make the trace of a start or stop, if it is sampled."""
        own = parse(self._tracing.begin(b""))
        if own is None or not own.sampled:
            return
        attributes: dict[str, AttributeValue] = {
            "ai_proxy.operation": operation.kind,
            "ai_proxy.service": operation.service_id,
            "ai_proxy.outcome": operation.outcome,
            "ai_proxy.reason": operation.reason,
        }
        span = self._begin(
            f"{operation.kind} {operation.service_id}",
            own,
            None,
            operation.began,
            attributes,
            SpanKind.INTERNAL,
        )
        within = trace.set_span_in_context(span)
        ends = [phase.began for phase in operation.phases[1:]] + [operation.ended]
        for phase, end in zip(operation.phases, ends, strict=True):
            self._part(phase.state, within, phase.began, end, {"ai_proxy.reason": phase.reason})
        if operation.failed:
            span.set_status(Status(StatusCode.ERROR, operation.reason))
        span.end(_ns(operation.ended))

    def _begin(
        self,
        name: str,
        own: TraceContext,
        parent: TraceContext | None,
        at: float,
        attributes: Mapping[str, AttributeValue],
        kind: SpanKind,
    ) -> Span:
        self._ids.set_next(own)
        return self._tracer.start_span(name, _remote(parent), kind, attributes, start_time=_ns(at))

    def _part(
        self, name: str, within: Context, begins: float, ends: float, attributes: Mapping[str, AttributeValue]
    ) -> None:
        part = self._tracer.start_span(name, within, attributes=attributes, start_time=_ns(begins))
        part.end(_ns(ends))


def request_name(record: RequestRecord) -> str:
    """Return the name of a request's span: the operation, and the model if a service offers it."""
    operation = OPERATIONS.get(record.endpoint, OTHER_OPERATION)
    return f"{operation} {record.model}" if record.service_id and record.model else operation


def request_attributes(record: RequestRecord) -> dict[str, AttributeValue]:
    """Return the attributes of a request's span, without prompts and answers."""
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": OPERATIONS.get(record.endpoint, OTHER_OPERATION),
        "http.request.method": "POST",
        "http.route": record.endpoint,
        "http.response.status_code": record.status,
        "ai_proxy.request_id": record.request_id,
        "ai_proxy.streamed": record.streamed,
        "ai_proxy.wait_seconds": record.waited,
    }
    if record.model:
        attributes["gen_ai.request.model"] = record.model
    if record.engine:
        attributes["gen_ai.provider.name"] = record.engine
    if record.service_id:
        attributes["ai_proxy.service"] = record.service_id
    if record.tokens_in >= 0:
        attributes["gen_ai.usage.input_tokens"] = record.tokens_in
    if record.tokens_out >= 0:
        attributes["gen_ai.usage.output_tokens"] = record.tokens_out
    if (speed := record.tokens_per_second) is not None:
        attributes["ai_proxy.output_tokens_per_second"] = speed
    if record.streamed and record.first_token >= 0:
        attributes["ai_proxy.time_to_first_token_seconds"] = record.first_token
    if record.error or record.status >= 500:
        attributes["error.type"] = record.error or str(record.status)
    return attributes


def request_parts(record: RequestRecord) -> Iterator[tuple[str, float, float]]:
    """Yield the phases of a request: name, begin and end, in seconds from its start.

    A request waits in the queue, or for its model to load, and is then forwarded.
    """
    if record.waited >= SHORTEST_WAIT:
        yield ("load" if record.loaded else "queue"), 0.0, min(record.waited, record.seconds)
    if record.service_id and record.waited < record.seconds:
        yield "forward", record.waited, record.seconds


def _remote(parent: TraceContext | None) -> Context:
    """Return the context of a span with a remote parent; of a root span without one."""
    if parent is None:
        return Context()
    sender = SpanContext(
        parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(int(parent.sampled))
    )
    return trace.set_span_in_context(NonRecordingSpan(sender), Context())


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
