"""Exports the proxy's log records from INFO up, with their traces where known.

The SDK's modules for logs begin with an underscore until their interface is final.
"""

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger
from opentelemetry import trace
from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.util.types import AnyValue

from ai_proxy.telemetry.otel.traceparent import parse

if TYPE_CHECKING:
    from loguru import Record

TRACEPARENT = "traceparent"
"""The name under which a record's traceparent is bound to it."""

SEVERITIES = {
    "INFO": SeverityNumber.INFO,
    "SUCCESS": SeverityNumber.INFO2,
    "WARNING": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
    "CRITICAL": SeverityNumber.FATAL,
}

_EXPORTING = ("opentelemetry", "grpc", "urllib3", "requests")
"""Loggers of the export itself: exporting their records would never end."""


def send_logs(otel: Logger) -> Callable[[], None]:
    """Export every record until the returned function is called."""
    sink = logger.add(
        lambda message: otel.emit(to_log_record(message.record)),
        level="INFO",
        format=_nothing,
        filter=_is_exported,
        colorize=False,
        backtrace=False,
        diagnose=False,
    )
    return lambda: logger.remove(sink)


def _nothing(_record: "Record") -> str:
    """Render nothing: the record itself is exported."""
    return ""


def _is_exported(record: "Record") -> bool:
    return (record["name"] or "").partition(".")[0] not in _EXPORTING


def to_log_record(record: "Record") -> LogRecord:
    """Return a record in OpenTelemetry's form; tracebacks have no values of variables."""
    extra = {name: value for name, value in record["extra"].items() if name != "json"}
    attributes: dict[str, AnyValue] = {
        "code.function.name": f"{record['name']}.{record['function']}",
        "code.line.number": record["line"],
        **{f"ai_proxy.{name}": str(value) for name, value in extra.items() if name != TRACEPARENT},
    }
    if (error := record["exception"]) is not None and error.type is not None:
        lines = traceback.format_exception(error.type, error.value, error.traceback)
        attributes["exception.type"] = error.type.__name__
        attributes["exception.message"] = str(error.value)
        attributes["exception.stacktrace"] = "".join(lines)
    level = record["level"].name
    return LogRecord(
        timestamp=int(record["time"].timestamp() * 1e9),
        context=_context(str(extra.get(TRACEPARENT, ""))),
        severity_text=level,
        severity_number=SEVERITIES.get(level, SeverityNumber.INFO),
        body=record["message"],
        attributes=attributes,
    )


def _context(traceparent: str) -> Context:
    found = parse(traceparent.encode(errors="replace"))
    if found is None:
        return Context()
    span = SpanContext(
        found.trace_id, found.span_id, is_remote=False, trace_flags=TraceFlags(int(found.sampled))
    )
    return trace.set_span_in_context(NonRecordingSpan(span), Context())
