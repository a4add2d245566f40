"""Who speaks OTLP: for each signal, over gRPC or HTTP. Only what is used is imported."""

from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

from ai_proxy.telemetry.otel.settings import Protocol, Target


def span_exporter(target: Target) -> SpanExporter:
    """Return what sends spans."""
    endpoint, headers = target.endpoint, _headers(target)
    if target.protocol is Protocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc(endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    return OverHttp(endpoint, headers=headers)


def metric_exporter(target: Target) -> MetricExporter:
    """Return what sends metrics."""
    endpoint, headers = target.endpoint, _headers(target)
    if target.protocol is Protocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGrpc

        return OverGrpc(endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHttp

    return OverHttp(endpoint, headers=headers)


def log_exporter(target: Target) -> LogRecordExporter:
    """Return what sends log records."""
    endpoint, headers = target.endpoint, _headers(target)
    if target.protocol is Protocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as OverGrpc

        return OverGrpc(endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as OverHttp

    return OverHttp(endpoint, headers=headers)


def _headers(target: Target) -> dict[str, str] | None:
    """Return headers with names in lower case, which gRPC insists on."""
    return None if target.headers is None else {name.lower(): text for name, text in target.headers.items()}
