"""The counts behind `/metrics` and behind the metrics of OpenTelemetry.

Every request is recorded, so recording only adds to plain integers and floats; the instruments of
prometheus_client and OpenTelemetry take a lock and several calls each. `prometheus.py` and `otel/metrics.py`
render the counts on demand.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from ai_proxy.core.lifecycle import State
from ai_proxy.core.usage import RequestRecord
from ai_proxy.platform.listeners import Listeners

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds in seconds: from a proxied health check to a long generation."""

BATCH = 128
"""Requests to models that are counted together."""

LOAD_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""Upper bounds in seconds: from a tiny model to one of hundreds of gigabytes."""

SPEED_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0)
"""Upper bounds in tokens per second: from a large model on a CPU to a small one on a large GPU."""

TOKEN_BUCKETS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)
"""Upper bounds in tokens: those of OpenTelemetry's `gen_ai.client.token.usage`, up to a million."""

OTHER = ""
"""Label of requests that belong to no declared service."""

OTHER_MODELS = "other"
"""Label of a service's models without a label of their own."""

MAX_MODELS = 50
"""Models of a service that get a label of their own: clients may request any number of names."""

MAX_MODEL_NAME = 200
"""Longest name, in characters, that becomes a label."""


class ServiceFacts(Protocol):
    """What metrics show of a service."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def state(self) -> State:
        """Its state."""

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

    def observe_all(self, values: Iterable[float]) -> None:
        """Add observations, at less cost than one by one: most of them fall in the same few buckets.

        Args:
            values: Negative ones stand for what is not known, and are left out.

        >>> histogram = Histogram((0.5, 1.0))
        >>> histogram.observe_all([0.7, 9.0, -1, 0.5, 0.1])
        >>> histogram.counts, histogram.total
        ([2, 1, 1], 10.3)
        """
        values = sorted(values)
        if values and values[0] < 0:
            del values[: bisect_left(values, 0)]
        counts, bounds, begin = self.counts, self.bounds, 0
        while begin < len(values):
            bucket = bisect_left(bounds, values[begin])
            end = bisect_right(values, bounds[bucket], begin) if bucket < len(bounds) else len(values)
            counts[bucket] += end - begin
            begin = end
        self.total += sum(values)

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the number of observations up to each bound, in Prometheus' form.

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


class Batch:
    """Finished requests, fact by fact: to count them so takes half the time of request by request.

    Attributes:
        requests: At least one.
        facts: The values of each field of `RequestRecord`, in the order of the requests.
        statuses: Number of requests by status.
        seconds: Their durations, sorted.
    """

    __slots__ = ("facts", "requests", "seconds", "statuses")

    def __init__(self, requests: Sequence[RequestRecord]) -> None:
        self.requests = requests
        self.facts: Mapping[str, tuple[Any, ...]] = dict(
            zip(RequestRecord._fields, zip(*requests, strict=True), strict=True)
        )
        statuses = self.facts["status"]
        self.statuses = {status: statuses.count(status) for status in set(statuses)}
        self.seconds = sorted(self.facts["seconds"])

    @property
    def streams(self) -> Sequence[RequestRecord]:
        """Those that began to stream an answer."""
        if not any(self.facts["streamed"]):
            return ()
        return [r for r in self.requests if r.streamed and r.status < 400 and r.first_token >= 0.0]


def _by_model(batch: Batch) -> list[Batch]:
    """Return a batch for each model; most often there is but one."""
    if len(set(batch.facts["model"])) == len(set(batch.facts["service_id"])) == 1:
        return [batch]
    by_model: defaultdict[tuple[str, str], list[RequestRecord]] = defaultdict(list)
    for one in batch.requests:
        by_model[one.service_id, one.model].append(one)
    return [Batch(requests) for requests in by_model.values()]


def _count(totals: dict[int, int], statuses: Mapping[int, int]) -> None:
    """Add to the number of times that each status was seen."""
    for status, count in statuses.items():
        totals[status] = totals.get(status, 0) + count


class ModelMetrics:
    """The counts of one model of a service."""

    __slots__ = ("durations", "first_tokens", "speeds", "statuses", "tokens_in", "tokens_out", "waits")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.durations = Histogram(BUCKETS)
        self.waits = Histogram(BUCKETS)
        self.first_tokens = Histogram(BUCKETS)
        self.speeds = Histogram(SPEED_BUCKETS)
        self.tokens_in = Histogram(TOKEN_BUCKETS)
        self.tokens_out = Histogram(TOKEN_BUCKETS)

    def add(self, batch: Batch) -> None:
        """Count finished requests; only streams have a time to the first token."""
        _count(self.statuses, batch.statuses)
        self.durations.observe_all(batch.seconds)
        self.waits.observe_all(batch.facts["waited"])
        self.tokens_in.observe_all(batch.facts["tokens_in"])
        self.tokens_out.observe_all(batch.facts["tokens_out"])
        if streams := batch.streams:
            self.first_tokens.observe_all([one.first_token for one in streams])
            speeds = [one.tokens_per_second for one in streams]
            self.speeds.observe_all([known for known in speeds if known is not None])


class ServiceMetrics:
    """The counts of one service."""

    __slots__ = ("durations", "first_bytes", "loads", "models", "received", "sent", "states", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.durations = Histogram(BUCKETS)
        self.first_bytes = Histogram(BUCKETS)
        self.loads = Histogram(LOAD_BUCKETS)
        self.states: dict[str, int] = {}
        self.models: dict[str, ModelMetrics] = {}
        self.received = 0
        self.sent = 0

    def add(self, batch: Batch) -> None:
        """Count finished requests to a model, which are exchanges as well."""
        _count(self.statuses, batch.statuses)
        self.durations.observe_all(batch.seconds)
        self.first_bytes.observe_all(batch.facts["first_byte"])
        self.received += sum(batch.facts["received"])
        self.sent += sum(batch.facts["sent"])


class Metrics:
    """A `core.ports.Recorder` that counts.

    Labels are bounded. A service has its own from its first state to `forget`; others share OTHER. A model
    has its own once the service has answered for it, up to MAX_MODELS; all others share OTHER_MODELS.

    Requests to models are counted in batches, which takes half the time of counting them one by one.
    """

    def __init__(self) -> None:
        self._other = ServiceMetrics()
        self._services: dict[str, ServiceMetrics] = {OTHER: self._other}
        self._listeners = Listeners[Sequence[RequestRecord]]("finished requests")
        self._unsettled: list[RequestRecord] = []

    def __repr__(self) -> str:
        return f"<Metrics [{len(self._services) - 1} services]>"

    def listen(self, listener: Callable[[Sequence[RequestRecord]], None]) -> None:
        """Call `listener` with every batch of finished requests to models."""
        self._listeners.add(listener)

    @property
    def services(self) -> Mapping[str, ServiceMetrics]:
        """The counts by id of the service; under OTHER those that belong to none."""
        self.settle()
        return self._services

    def exchange(
        self, service_id: str, status: int, seconds: float, first_byte: float, received: int, sent: int
    ) -> None:
        """Record a finished exchange; see `core.ports.Recorder`."""
        counted = self._services.get(service_id, self._other)
        statuses = counted.statuses
        statuses[status] = statuses.get(status, 0) + 1
        # Inlined `observe()`: two method calls would be a third of the cost.
        histogram = counted.durations
        histogram.counts[bisect_left(BUCKETS, seconds)] += 1
        histogram.total += seconds
        if first_byte >= 0.0:
            histogram = counted.first_bytes
            histogram.counts[bisect_left(BUCKETS, first_byte)] += 1
            histogram.total += first_byte
        counted.received += received
        counted.sent += sent

    def finished(self, record: RequestRecord) -> None:
        """Record a finished request to a model; see `core.ports.Recorder`."""
        unsettled = self._unsettled
        unsettled.append(record)
        if len(unsettled) >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Count the requests to models since the last time, and inform the listeners."""
        unsettled, self._unsettled = self._unsettled, []
        if not unsettled:
            return
        for batch in _by_model(Batch(unsettled)):
            self._count(batch)
        self._listeners.publish(unsettled)

    def _count(self, batch: Batch) -> None:
        """Count finished requests to one model."""
        service_id, model = batch.requests[0].service_id, batch.requests[0].model
        service = self._services.get(service_id, self._other)
        service.add(batch)
        counted = service.models.get(model)
        if counted is None:
            label = self._label(service, model, answered=any(status < 400 for status in batch.statuses))
            counted = service.models.setdefault(label, ModelMetrics())
        counted.add(batch)

    def _label(self, service: ServiceMetrics, model: str, *, answered: bool) -> str:
        """Return the label of a model that has none of its own yet."""
        if service is self._other:
            return OTHER
        shown = 0 < len(model) <= MAX_MODEL_NAME and model.isprintable()
        return model if shown and answered and len(service.models) < MAX_MODELS else OTHER_MODELS

    def state(self, service_id: str, state: str) -> None:
        """Record that a service entered a state."""
        states = self._service(service_id).states
        states[state] = states.get(state, 0) + 1

    def started(self, service_id: str, seconds: float) -> None:
        """Record a start that reached READY, and how long it took."""
        self._service(service_id).loads.observe(seconds)

    def forget(self, service_id: str) -> None:
        """Drop the counts of a service that is no longer declared."""
        self.settle()
        if service_id != OTHER:
            self._services.pop(service_id, None)

    def _service(self, service_id: str) -> ServiceMetrics:
        counted = self._services.get(service_id)
        if counted is None:
            counted = self._services[service_id] = ServiceMetrics()
        return counted
