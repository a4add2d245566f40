"""The SDK's OTLP exporters, over gRPC or HTTP; only those in use are imported."""

from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

from ai_proxy.telemetry.otel.settings import Protocol, Target


def span_exporter(target: Target) -> SpanExporter:
    """Return the exporter of spans."""
    endpoint, headers = target.endpoint, _headers(target)
    if target.protocol is Protocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc(endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    return OverHttp(endpoint, headers=headers)


def metric_exporter(target: Target) -> MetricExporter:
    """Return the exporter of metrics."""
    endpoint, headers = target.endpoint, _headers(target)
    if target.protocol is Protocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGrpc

        return OverGrpc(endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHttp

    return OverHttp(endpoint, headers=headers)


def log_exporter(target: Target) -> LogRecordExporter:
    """Return the exporter of log records."""
    endpoint, headers = target.endpoint, _headers(target)
    if target.protocol is Protocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as OverGrpc

        return OverGrpc(endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as OverHttp

    return OverHttp(endpoint, headers=headers)


def _headers(target: Target) -> dict[str, str] | None:
    """Return headers with lower-case names, as gRPC requires."""
    return None if target.headers is None else {name.lower(): text for name, text in target.headers.items()}
