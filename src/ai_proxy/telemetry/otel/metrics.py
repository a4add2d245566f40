"""Metrics in OpenTelemetry's form.

They are made of the counts behind `/metrics` for each export, so that nothing is recorded twice. Names follow
the GenAI semantic conventions where these have one.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ai_proxy.core.lifecycle import State
from ai_proxy.platform.tasks import Restarts
from ai_proxy.telemetry.metrics import Histogram as Counts
from ai_proxy.telemetry.metrics import ModelMetrics, ServiceFacts, ServiceMetrics

type Attributes = Mapping[str, str | int]
type Distributions = Iterable[tuple[Attributes, Counts]]
type Numbers = Iterable[tuple[Attributes, float]]

_CUMULATIVE = AggregationTemporality.CUMULATIVE


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counts at one moment.

    Attributes:
        metrics: The counts, by service.
        services: Their state.
        restarts: Background work that failed and was restarted, by name.
        began: When counting began, in nanoseconds since the epoch.
        now: The current time, in nanoseconds since the epoch.
    """

    metrics: Mapping[str, ServiceMetrics]
    services: tuple[ServiceFacts, ...]
    restarts: Mapping[str, Restarts]
    began: int
    now: int

    def histogram(self, name: str, unit: str, text: str, distributions: Distributions) -> Metric:
        """Return distributions as a metric, without the empty ones."""
        points = [
            HistogramDataPoint(
                attributes=attributes,
                start_time_unix_nano=self.began,
                time_unix_nano=self.now,
                count=sum(counted.counts),
                sum=counted.total,
                bucket_counts=tuple(counted.counts),
                explicit_bounds=counted.bounds,
                min=None,  # type: ignore[arg-type]  # unknown; optional in the protocol
                max=None,  # type: ignore[arg-type]
            )
            for attributes, counted in distributions
            if any(counted.counts)
        ]
        return Metric(name, text, unit, Histogram(points, _CUMULATIVE))

    def counter(self, name: str, unit: str, text: str, numbers: Numbers) -> Metric:
        """Return counters as a metric."""
        return Metric(name, text, unit, Sum(self._points(numbers), _CUMULATIVE, is_monotonic=True))

    def gauge(self, name: str, unit: str, text: str, numbers: Numbers) -> Metric:
        """Return gauges as a metric."""
        return Metric(name, text, unit, Gauge(self._points(numbers)))

    def _points(self, numbers: Numbers) -> list[NumberDataPoint]:
        return [NumberDataPoint(attributes, self.began, self.now, value) for attributes, value in numbers]

    def by_service(self) -> Iterator[tuple[Attributes, ServiceMetrics]]:
        """Yield the counts of each service."""
        for service, counted in self.metrics.items():
            yield {"ai_proxy.service": service}, counted

    def by_model(self) -> Iterator[tuple[dict[str, str | int], ModelMetrics]]:
        """Yield the counts of each model of each service."""
        for service, counted in self.metrics.items():
            for model, model_counted in counted.models.items():
                yield {"ai_proxy.service": service, "gen_ai.request.model": model}, model_counted


def collect(snapshot: Snapshot) -> list[Metric]:
    """Return all metrics that have data points."""
    metrics = [
        *_of_models(snapshot),
        *_of_services(snapshot),
        *_service_states(snapshot),
        _restarts(snapshot),
    ]
    return [metric for metric in metrics if metric.data.data_points]


def _of_models(snapshot: Snapshot) -> Iterator[Metric]:
    yield snapshot.histogram(
        "gen_ai.client.token.usage", "{token}", "Tokens of prompts and answers.", _tokens(snapshot)
    )
    yield snapshot.histogram(
        "gen_ai.server.request.duration",
        "s",
        "From the head of a request to the end of its response.",
        ((labels, counted.durations) for labels, counted in snapshot.by_model()),
    )
    yield snapshot.histogram(
        "gen_ai.server.time_to_first_token",
        "s",
        "From the head of a request to the first token of its stream.",
        ((labels, counted.first_tokens) for labels, counted in snapshot.by_model()),
    )
    yield snapshot.histogram(
        "ai_proxy.output_tokens_per_second",
        "{token}/s",
        "Speed of a stream, from its first token on.",
        ((labels, counted.speeds) for labels, counted in snapshot.by_model()),
    )
    yield snapshot.histogram(
        "ai_proxy.queue.wait",
        "s",
        "Time a request waited: in the queue, and while a model loaded.",
        ((labels, counted.waits) for labels, counted in snapshot.by_model()),
    )
    yield snapshot.counter(
        "ai_proxy.model.requests", "{request}", "Finished requests to a model.", _model_statuses(snapshot)
    )


def _tokens(snapshot: Snapshot) -> Iterator[tuple[Attributes, Counts]]:
    for labels, counted in snapshot.by_model():
        yield {**labels, "gen_ai.token.type": "input"}, counted.tokens_in
        yield {**labels, "gen_ai.token.type": "output"}, counted.tokens_out


def _model_statuses(snapshot: Snapshot) -> Iterator[tuple[Attributes, float]]:
    for labels, counted in snapshot.by_model():
        for status, count in counted.statuses.items():
            yield {**labels, "http.response.status_code": status}, count


def _of_services(snapshot: Snapshot) -> Iterator[Metric]:
    yield snapshot.counter("ai_proxy.requests", "{request}", "Finished exchanges.", _statuses(snapshot))
    yield snapshot.histogram(
        "ai_proxy.request.duration",
        "s",
        "From the head of a request to the end of its response.",
        ((labels, counted.durations) for labels, counted in snapshot.by_service()),
    )
    yield snapshot.counter(
        "ai_proxy.received",
        "By",
        "Body bytes from clients.",
        ((labels, counted.received) for labels, counted in snapshot.by_service()),
    )
    yield snapshot.counter(
        "ai_proxy.sent",
        "By",
        "Body bytes to clients.",
        ((labels, counted.sent) for labels, counted in snapshot.by_service()),
    )
    yield snapshot.histogram(
        "ai_proxy.service.load",
        "s",
        "From start to ready.",
        ((labels, counted.loads) for labels, counted in snapshot.by_service()),
    )
    yield snapshot.counter(
        "ai_proxy.service.transitions", "{transition}", "States entered.", _transitions(snapshot)
    )


def _statuses(snapshot: Snapshot) -> Iterator[tuple[Attributes, float]]:
    for labels, counted in snapshot.by_service():
        for status, count in counted.statuses.items():
            yield {**labels, "http.response.status_code": status}, count


def _transitions(snapshot: Snapshot) -> Iterator[tuple[Attributes, float]]:
    for labels, counted in snapshot.by_service():
        for state, count in counted.states.items():
            yield {**labels, "ai_proxy.state": state}, count


def _service_states(snapshot: Snapshot) -> Iterator[Metric]:
    yield snapshot.gauge(
        "ai_proxy.requests.in_flight",
        "{request}",
        "Requests being served.",
        (({"ai_proxy.service": service.id}, service.in_flight) for service in snapshot.services),
    )
    yield snapshot.gauge(
        "ai_proxy.requests.waiting",
        "{request}",
        "Requests that wait.",
        (({"ai_proxy.service": service.id}, service.waiting) for service in snapshot.services),
    )
    yield snapshot.gauge(
        "ai_proxy.service.state",
        "1",
        "1 for the state a service is in, else 0.",
        (
            ({"ai_proxy.service": service.id, "ai_proxy.state": state}, int(service.state is state))
            for service in snapshot.services
            for state in State
        ),
    )


def _restarts(snapshot: Snapshot) -> Metric:
    return snapshot.counter(
        "ai_proxy.task.restarts",
        "{restart}",
        "Restarts of background work that failed.",
        (({"ai_proxy.task": name}, work.count) for name, work in snapshot.restarts.items()),
    )


def package(metrics: list[Metric], resource: Resource, version: str) -> MetricsData:
    """Return metrics in the form that exporters take."""
    scope = ScopeMetrics(InstrumentationScope("ai_proxy", version), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])
