"""Metrics in Prometheus' text format."""

import platform
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from ai_proxy.core.lifecycle import State
from ai_proxy.platform.tasks import Restarts
from ai_proxy.telemetry.metrics import OTHER, Histogram, ModelMetrics, ServiceFacts, ServiceMetrics


def render(
    metrics: Mapping[str, ServiceMetrics],
    services: Iterable[ServiceFacts],
    restarts: Mapping[str, Restarts],
    tasks: int,
    version: str,
) -> tuple[bytes, str]:
    """Return all metrics in Prometheus' text format, and its content type.

    Args:
        metrics: The counts, by service.
        services: Their current state.
        restarts: Background work that failed and was restarted, by name.
        tasks: How many the event loop has.
        version: Of the program.
    """
    build = {"version": version, "python": platform.python_version()}
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_Scrape([InfoMetricFamily("ai_proxy_build", "Version of the proxy.", build)]))
    registry.register(_Scrape(_by_service(metrics)))
    registry.register(_Scrape(_by_model(metrics)))
    registry.register(_Scrape(_service_states(services)))
    registry.register(_Scrape([_restarts(restarts), GaugeMetricFamily("ai_proxy_tasks", "Tasks.", tasks)]))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def _restarts(restarts: Mapping[str, Restarts]) -> Metric:
    family = CounterMetricFamily(
        "ai_proxy_task_restarts", "Restarts of background work that failed.", labels=["task"]
    )
    for name, work in restarts.items():
        family.add_metric([name], work.count)
    return family


class _Scrape(Collector):
    """Metric families made for one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _by_service(metrics: Mapping[str, ServiceMetrics]) -> list[Metric]:
    requests = CounterMetricFamily(
        "ai_proxy_requests",
        "Finished exchanges; 499: the client left first, 599: the response broke off.",
        labels=["service", "status"],
    )
    transitions = CounterMetricFamily(
        "ai_proxy_service_transitions", "States entered.", labels=["service", "state"]
    )
    starts = CounterMetricFamily("ai_proxy_service_starts", "Starts that reached ready.", labels=["service"])
    received = CounterMetricFamily("ai_proxy_received_bytes", "Body bytes from clients.", labels=["service"])
    sent = CounterMetricFamily("ai_proxy_sent_bytes", "Body bytes to clients.", labels=["service"])
    durations = HistogramMetricFamily(
        "ai_proxy_request_duration_seconds",
        "From the head of a request to the end of its response.",
        labels=["service"],
    )
    first_bytes = HistogramMetricFamily(
        "ai_proxy_time_to_first_byte_seconds",
        "From the head of a request to the first byte of its response.",
        labels=["service"],
    )
    loads = HistogramMetricFamily("ai_proxy_service_load_seconds", "From start to ready.", labels=["service"])
    for service, counted in metrics.items():
        for status, count in counted.statuses.items():
            requests.add_metric([service, str(status)], count)
        for state, count in counted.states.items():
            transitions.add_metric([service, state], count)
        received.add_metric([service], counted.received)
        sent.add_metric([service], counted.sent)
        durations.add_metric([service], counted.durations.cumulative(), counted.durations.total)
        first_bytes.add_metric([service], counted.first_bytes.cumulative(), counted.first_bytes.total)
        if service != OTHER:
            starts.add_metric([service], sum(counted.loads.counts))
            loads.add_metric([service], counted.loads.cumulative(), counted.loads.total)
    return [requests, durations, first_bytes, received, sent, starts, loads, transitions]


def _by_model(metrics: Mapping[str, ServiceMetrics]) -> list[Metric]:
    requests = CounterMetricFamily(
        "ai_proxy_model_requests",
        "Finished requests to a model; 499: the client left first, 599: the response broke off.",
        labels=["service", "model", "status"],
    )
    tokens_in = CounterMetricFamily(
        "ai_proxy_input_tokens", "Tokens of prompts, where known.", labels=["service", "model"]
    )
    tokens_out = CounterMetricFamily(
        "ai_proxy_output_tokens", "Tokens of answers, where known.", labels=["service", "model"]
    )
    durations = _model_histogram(
        "ai_proxy_model_request_duration_seconds", "From the head of a request to the end of its response."
    )
    waits = _model_histogram(
        "ai_proxy_queue_wait_seconds", "Time a request waited: in the queue, and while a model loaded."
    )
    first_tokens = _model_histogram(
        "ai_proxy_time_to_first_token_seconds", "From the head of a request to the first token of its stream."
    )
    speeds = _model_histogram(
        "ai_proxy_output_tokens_per_second", "Speed of a stream, from its first token on."
    )
    for service, model, counted in _models(metrics):
        labels = [service, model]
        for status, count in counted.statuses.items():
            requests.add_metric([*labels, str(status)], count)
        tokens_in.add_metric(labels, counted.tokens_in.total)
        tokens_out.add_metric(labels, counted.tokens_out.total)
        _add(durations, labels, counted.durations)
        _add(waits, labels, counted.waits)
        _add(first_tokens, labels, counted.first_tokens)
        _add(speeds, labels, counted.speeds)
    return [requests, durations, waits, first_tokens, speeds, tokens_in, tokens_out]


def _models(metrics: Mapping[str, ServiceMetrics]) -> Iterator[tuple[str, str, ModelMetrics]]:
    for service, counted in metrics.items():
        for model, by_model in counted.models.items():
            yield service, model, by_model


def _model_histogram(name: str, text: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, labels=["service", "model"])


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    family.add_metric(labels, histogram.cumulative(), histogram.total)


def _service_states(services: Iterable[ServiceFacts]) -> list[Metric]:
    states = GaugeMetricFamily(
        "ai_proxy_service_state", "1 for the state a service is in, else 0.", labels=["service", "state"]
    )
    in_flight = GaugeMetricFamily("ai_proxy_requests_in_flight", "Requests being served.", labels=["service"])
    waiting = GaugeMetricFamily("ai_proxy_requests_waiting", "Requests that wait.", labels=["service"])
    for service in services:
        in_flight.add_metric([service.id], service.in_flight)
        waiting.add_metric([service.id], service.waiting)
        for state in State:
            states.add_metric([service.id, state], float(service.state is state))
    return [states, in_flight, waiting]
