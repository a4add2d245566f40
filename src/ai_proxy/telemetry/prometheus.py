"""Measurements in the form that Prometheus scrapes.

Recording is on the path of every request, so it only adds to plain integers and floats (prometheus_client's
own counters take a lock and a method call each); they become metric families when somebody scrapes.
"""

import platform
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

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
from ai_proxy.core.usage import Inference

REQUEST_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
"""Upper bounds in seconds: from a proxied health check to a long generation."""

LOAD_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""Upper bounds in seconds: from a tiny model to one of hundreds of gigabytes."""

OTHER = ""
"""Label of what belongs to no declared service."""


class ServiceFacts(Protocol):
    """What is read of a service at scrape."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def state(self) -> State:
        """Where it stands."""

    @property
    def in_flight(self) -> int:
        """Leases held."""

    @property
    def waiting(self) -> int:
        """Requests that wait for it."""


class Histogram:
    """Counts per bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<Histogram [{sum(self.counts)} observations]>"

    def observe(self, value: float) -> None:
        """Add an observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the number of observations up to each bound, as Prometheus wants them.

        >>> histogram = Histogram((0.5, 1.0))
        >>> for seconds in (0.5, 0.7, 9.0): histogram.observe(seconds)
        >>> histogram.cumulative()
        [('0.5', 1), ('1.0', 2), ('+Inf', 3)]
        """
        seen = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            seen += count
            buckets.append((bound, seen))
        return buckets


class Tally:
    """All that is counted for one service."""

    __slots__ = ("durations", "first_bytes", "loads", "received", "sent", "states", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.durations = Histogram(REQUEST_BUCKETS)
        self.first_bytes = Histogram(REQUEST_BUCKETS)
        self.loads = Histogram(LOAD_BUCKETS)
        self.states: dict[str, int] = {}
        self.received = 0
        self.sent = 0


class PrometheusRecorder:
    """A `core.ports.Recorder` that adds up.

    Labels are bounded: a service exists from its first state to `forget`; all others count as one.
    """

    def __init__(self, version: str) -> None:
        self._build = {"version": version, "python": platform.python_version()}
        self._other = Tally()
        self._tallies: dict[str, Tally] = {OTHER: self._other}

    def __repr__(self) -> str:
        return f"<PrometheusRecorder [{len(self._tallies) - 1} services]>"

    def exchange(
        self, service_id: str, status: int, seconds: float, first_byte: float, received: int, sent: int
    ) -> None:
        """Record a finished exchange; see `core.ports.Recorder`."""
        tally = self._tallies.get(service_id, self._other)
        statuses = tally.statuses
        statuses[status] = statuses.get(status, 0) + 1
        # Written out instead of `observe()`: two method calls would be a third of the cost.
        histogram = tally.durations
        histogram.counts[bisect_left(REQUEST_BUCKETS, seconds)] += 1
        histogram.total += seconds
        if first_byte >= 0.0:
            histogram = tally.first_bytes
            histogram.counts[bisect_left(REQUEST_BUCKETS, first_byte)] += 1
            histogram.total += first_byte
        tally.received += received
        tally.sent += sent

    def inference(self, inference: Inference) -> None:
        """Record a finished request to a model."""

    def state(self, service_id: str, state: str) -> None:
        """Record that a service entered a state."""
        states = self._tallies.setdefault(service_id, Tally()).states
        states[state] = states.get(state, 0) + 1

    def started(self, service_id: str, seconds: float) -> None:
        """Record a start that reached READY, and how long it took."""
        self._tallies.setdefault(service_id, Tally()).loads.observe(seconds)

    def forget(self, service_id: str) -> None:
        """Drop what is held about a service that is no longer declared."""
        if service_id != OTHER:
            self._tallies.pop(service_id, None)

    def render(self, services: Iterable[ServiceFacts]) -> tuple[bytes, str]:
        """Return everything in Prometheus' text format, and its content type.

        Args:
            services: As they stand now.
        """
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(_Scrape([InfoMetricFamily("ai_proxy_build", "What runs.", self._build)]))
        registry.register(_Scrape(_counted(self._tallies)))
        registry.register(_Scrape(_standing(services)))
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Scrape(Collector):
    """Metric families made for one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _counted(tallies: Mapping[str, Tally]) -> list[Metric]:
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
    for service, tally in tallies.items():
        for status, count in tally.statuses.items():
            requests.add_metric([service, str(status)], count)
        for state, count in tally.states.items():
            transitions.add_metric([service, state], count)
        received.add_metric([service], tally.received)
        sent.add_metric([service], tally.sent)
        durations.add_metric([service], tally.durations.cumulative(), tally.durations.total)
        first_bytes.add_metric([service], tally.first_bytes.cumulative(), tally.first_bytes.total)
        if service != OTHER:
            starts.add_metric([service], sum(tally.loads.counts))
            loads.add_metric([service], tally.loads.cumulative(), tally.loads.total)
    return [requests, durations, first_bytes, received, sent, starts, loads, transitions]


def _standing(services: Iterable[ServiceFacts]) -> list[Metric]:
    states = GaugeMetricFamily(
        "ai_proxy_service_state", "1 for the state a service is in, else 0.", labels=["service", "state"]
    )
    in_flight = GaugeMetricFamily("ai_proxy_requests_in_flight", "Requests being served.", labels=["service"])
    waiting = GaugeMetricFamily("ai_proxy_requests_waiting", "Requests held back.", labels=["service"])
    for service in services:
        in_flight.add_metric([service.id], service.in_flight)
        waiting.add_metric([service.id], service.waiting)
        for state in State:
            states.add_metric([service.id, state], float(service.state is state))
    return [states, in_flight, waiting]
