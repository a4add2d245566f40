"""A collector that keeps what it is sent: OTLP over gRPC and HTTP, on the wire."""

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol, Self

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

type Value = str | int | float | bool | None


class _Message(Protocol):
    """What is used of protobuf's messages."""

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802
        """Decode one."""

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Encode it."""


_SERVICES: dict[str, tuple[type[_Message], type[_Message]]] = {
    "trace.v1.TraceService": (ExportTraceServiceRequest, ExportTraceServiceResponse),
    "metrics.v1.MetricsService": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
    "logs.v1.LogsService": (ExportLogsServiceRequest, ExportLogsServiceResponse),
}
_PATHS = dict(zip(("/v1/traces", "/v1/metrics", "/v1/logs"), _SERVICES.values(), strict=True))


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    """Return attributes as a plain mapping."""
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


class OtlpSink:
    """Keeps what arrives, whichever way it came.

    Attributes:
        grpc_url: Where it takes OTLP over gRPC.
        http_url: Where it takes OTLP over HTTP.
        headers: Of every request, in order; names in lower case.
        spans: By arrival.
        logs: Likewise.
        metrics: Likewise; the same metric comes again with each sending.
        resources: Attributes of the sender of every request.
    """

    def __init__(self) -> None:
        self.grpc_url = self.http_url = ""
        self.headers: list[dict[str, str]] = []
        self.spans: list[Span] = []
        self.logs: list[LogRecord] = []
        self.metrics: list[Metric] = []
        self.resources: list[dict[str, Value]] = []
        self._changed = threading.Condition()

    def take(self, request: object, headers: dict[str, str]) -> None:
        """Keep one request."""
        with self._changed:
            self.headers.append(headers)
            match request:
                case ExportTraceServiceRequest():
                    for spans in request.resource_spans:
                        self.resources.append(attributes(spans.resource.attributes))
                        self.spans += [span for scope in spans.scope_spans for span in scope.spans]
                case ExportMetricsServiceRequest():
                    for metrics in request.resource_metrics:
                        self.resources.append(attributes(metrics.resource.attributes))
                        self.metrics += [m for scope in metrics.scope_metrics for m in scope.metrics]
                case ExportLogsServiceRequest():
                    for logs in request.resource_logs:
                        self.resources.append(attributes(logs.resource.attributes))
                        self.logs += [log for scope in logs.scope_logs for log in scope.log_records]
            self._changed.notify_all()

    def wait[T](self, look: Callable[[], T | None], seconds: float = 10.0) -> T:
        """Return the first true thing that a look at what has arrived brings.

        Raises:
            AssertionError: It did not come in time.
        """
        with self._changed:
            found = self._changed.wait_for(look, seconds)
        assert found, f"not in time; spans: {[span.name for span in self.spans]}"
        return found

    def span(self, name: str) -> Span:
        """Wait for a span, and return it."""
        return self.wait(lambda: next((span for span in self.spans if span.name == name), None))

    def metric(self, name: str) -> Metric:
        """Wait for a metric, and return it as it came last."""
        return self.wait(lambda: next((m for m in reversed(self.metrics) if m.name == name), None))

    def log(self, text: str) -> LogRecord:
        """Wait for a log record that has a text in its message, and return it."""
        return self.wait(lambda: next((log for log in self.logs if text in log.body.string_value), None))


@contextmanager
def otlp_sink() -> Iterator[OtlpSink]:
    """Run a sink on free ports of the loopback."""
    sink = OtlpSink()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([_handler(sink, name) for name in _SERVICES])
    sink.grpc_url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _http_handler(sink))
    sink.http_url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield sink
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
        server.stop(None).wait()


def _handler(sink: OtlpSink, name: str) -> grpc.GenericRpcHandler:
    wanted, answer = _SERVICES[name]

    def export(request: object, context: grpc.ServicerContext) -> object:
        sink.take(request, {key: str(text) for key, text in context.invocation_metadata()})
        return answer()

    method = grpc.unary_unary_rpc_method_handler(
        export, wanted.FromString, lambda message: message.SerializeToString()
    )
    return grpc.method_handlers_generic_handler(f"opentelemetry.proto.collector.{name}", {"Export": method})


def _http_handler(sink: OtlpSink) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            wanted, answer = _PATHS[self.path]
            sink.take(wanted.FromString(body), {key.lower(): text for key, text in self.headers.items()})
            encoded = answer().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
            """Say nothing."""

    return Handler
