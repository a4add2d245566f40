"""Exports each signal, and ends within a bounded time."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from loguru import logger
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.ports import Clock, Tracing
from ai_proxy.core.usage import RequestRecord
from ai_proxy.platform.tasks import Background, cancel, spawn
from ai_proxy.platform.threads import in_thread
from ai_proxy.telemetry.metrics import Metrics, ServiceFacts
from ai_proxy.telemetry.operations import Operations
from ai_proxy.telemetry.otel.logs import send_logs
from ai_proxy.telemetry.otel.metrics import Snapshot, collect, package
from ai_proxy.telemetry.otel.settings import Plan, Protocol, Signal, Target
from ai_proxy.telemetry.otel.spans import GivenIds, Spans
from ai_proxy.telemetry.otel.traceparent import Traceparents

EXPORTERS = {
    Signal.TRACES: ("trace_exporter", "OTLPSpanExporter"),
    Signal.METRICS: ("metric_exporter", "OTLPMetricExporter"),
    Signal.LOGS: ("_log_exporter", "OTLPLogExporter"),
}
"""Module and class of the SDK's exporters, which has one of each for gRPC and one for HTTP."""

type Work = Callable[[], object]

CLOSE_TIMEOUT = 3.0
"""Seconds for the last export at the end, whether or not the collector answers."""

QUIET = 300.0
"""Seconds for which a repeated warning of the SDK, such as about an unreachable collector, is not logged."""


class TraceSender:
    """Exports traces.

    Attributes:
        tracing: Decides for each request whether its trace is kept.
    """

    def __init__(self, target: Target, plan: Plan, resource: Resource, host: str) -> None:
        self.tracing = Traceparents(plan.sampling)
        ids = GivenIds()
        # Whether a trace is kept was decided when its request came; its traceparent says so.
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=ids)
        self._provider.add_span_processor(BatchSpanProcessor(otlp_exporter(Signal.TRACES, target)))
        self._spans = Spans(self._provider, ids, self.tracing, host)
        self._operations = Operations()

    def requests(self, finished: Iterable[RequestRecord]) -> None:
        """Export finished requests to models."""
        for request in finished:
            self._spans.request(request)

    def event(self, event: ServiceEvent) -> None:
        """Export the operation that ends with an event."""
        for operation in self._operations.add(event):
            self._spans.operation(operation)

    def end(self) -> None:
        """Export the rest; blocks."""
        self._provider.shutdown()


class MetricSender:
    """Exports metrics at intervals.

    Attributes:
        services: Returns the current state of the services.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        metrics: Metrics,
        resource: Resource,
        version: str,
        clock: Clock,
        background: Background,
    ) -> None:
        self._exporter = exporter
        self._metrics = metrics
        self._resource = resource
        self._version = version
        self._clock = clock
        self._background = background
        self._began = time.time_ns()
        self.services: Callable[[], Iterable[ServiceFacts]] = tuple

    async def run(self, interval: float) -> None:
        """Export the metrics every `interval` seconds, until cancelled."""
        while True:
            await self._clock.sleep(interval)
            await in_threads([self.sending()])

    def sending(self) -> Work:
        """Return the work that exports the current metrics; it blocks."""
        snapshot = Snapshot(
            self._metrics.services,
            tuple(self.services()),
            self._background.restarts,
            self._began,
            time.time_ns(),
        )
        data = package(collect(snapshot), self._resource, self._version)
        return lambda: self._exporter.export(data)

    def end(self) -> None:
        """Abort an export; blocks."""
        self._exporter.shutdown()


class LogSender:
    """Exports log records."""

    def __init__(self, target: Target, resource: Resource, version: str) -> None:
        self._provider = LoggerProvider(resource, shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(otlp_exporter(Signal.LOGS, target)))
        self._stop = send_logs(self._provider.get_logger("ai_proxy", version))

    def end(self) -> None:
        """Take no more records, and export the rest; blocks."""
        self._stop()
        self._provider.shutdown()


class Export:
    """Exports every configured signal until it is closed; nothing here waits for the collector."""

    def __init__(
        self, plan: Plan, metrics: Metrics, version: str, host: str, clock: Clock, background: Background
    ) -> None:
        resource = Resource.create(_resource_attributes(plan.service_name, version))
        targets = plan.targets
        self._traces = self._metrics = self._logs = self._ticker = None
        if (target := targets.get(Signal.TRACES)) is not None:
            self._traces = TraceSender(target, plan, resource, host)
        if (target := targets.get(Signal.METRICS)) is not None:
            self._metrics = MetricSender(
                otlp_exporter(Signal.METRICS, target), metrics, resource, version, clock, background
            )
            self._ticker = background.run(partial(self._metrics.run, plan.interval), "metrics export")
        if (target := targets.get(Signal.LOGS)) is not None:
            self._logs = LogSender(target, resource, version)
        _filter_repeats()

    @property
    def tracing(self) -> Tracing | None:
        """Decides for every request whether it is traced; None without traces."""
        return self._traces.tracing if self._traces else None

    @property
    def request_listeners(self) -> tuple[Callable[[Iterable[RequestRecord]], None], ...]:
        """The listeners of finished requests."""
        return (self._traces.requests,) if self._traces else ()

    def watch(self, services: Callable[[], Iterable[ServiceFacts]]) -> None:
        """Read the state of the services from now on."""
        if self._metrics:
            self._metrics.services = services

    def event(self, event: ServiceEvent) -> None:
        """Export the operation that ends with an event."""
        if self._traces:
            self._traces.event(event)

    async def close(self) -> None:
        """Export the rest, within CLOSE_TIMEOUT seconds."""
        await cancel(self._ticker)
        endings: list[Work] = [sender.end for sender in (self._traces, self._logs) if sender]
        if self._metrics:
            endings.append(self._metrics.sending())
        await in_threads(endings, CLOSE_TIMEOUT)
        if self._metrics:
            await in_threads([self._metrics.end], CLOSE_TIMEOUT)


async def in_threads(works: Sequence[Work], timeout: float | None = None) -> None:  # noqa: ASYNC109
    """Do each work in a thread of its own; return when all are done, or after that many seconds.

    A failure is logged: the SDK and its exporters may raise anything, and nothing depends on their success.
    """
    tasks = [spawn(in_thread(work, "telemetry"), "export telemetry") for work in works]
    if not tasks:
        return
    done, late = await asyncio.wait(tasks, timeout=timeout)
    await cancel(*late)
    for task in done:
        if (error := task.exception()) is not None:
            logger.warning("cannot export telemetry: {}: {}", type(error).__name__, error)


def otlp_exporter(signal: Signal, target: Target) -> Any:
    """Return the SDK's exporter of a signal; only the one in use is imported."""
    module, name = EXPORTERS[signal]
    transport = "grpc" if target.protocol is Protocol.GRPC else "http"
    exporter = getattr(import_module(f"opentelemetry.exporter.otlp.proto.{transport}.{module}"), name)
    headers = target.headers and {key.lower(): text for key, text in target.headers.items()}  # for gRPC
    return exporter(target.endpoint, headers=headers)


def _resource_attributes(service_name: str | None, version: str) -> dict[str, str]:
    """Return the proxy's resource attributes, which take precedence over those of variables."""
    named = {} if service_name is None else {"service.name": service_name}
    return {"service.version": version, **named}


class _RepeatFilter(logging.Filter):
    """Drops a message that was logged less than QUIET seconds ago."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._logged.get(record.msg, -QUIET) < QUIET:
            return False
        self._logged[record.msg] = now
        return True


def _filter_repeats() -> None:
    """Filter each of the SDK's loggers: a parent's filters do not apply to them."""
    repeats = _RepeatFilter()
    for name in logging.root.manager.loggerDict:
        if name.startswith("opentelemetry."):
            logging.getLogger(name).addFilter(repeats)
