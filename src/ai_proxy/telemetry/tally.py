"""What is counted: the numbers behind `/metrics` and behind the metrics that OpenTelemetry sends.

Recording is on the path of every request, so it only adds to plain integers and floats (prometheus_client's
and OpenTelemetry's own instruments take a lock and several calls each); they become metrics when somebody
asks for them.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Protocol

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

BATCH = 64
"""Requests to models that are counted together; before that they are counted when somebody looks."""

LOAD_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""Upper bounds in seconds: from a tiny model to one of hundreds of gigabytes."""

SPEED_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0)
"""Upper bounds in tokens per second: from a large model on a CPU to a small one on a large GPU."""

TOKEN_BUCKETS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)
"""Upper bounds in tokens: those of OpenTelemetry's `gen_ai.client.token.usage`, up to a million."""

OTHER = ""
"""Label of what belongs to no declared service."""

OTHER_MODELS = "other"
"""Label of a service's models that have none of their own."""

MAX_MODELS = 50
"""Models of a service that get a label of their own; clients may make up names without end."""

MAX_MODEL_NAME = 200
"""Longest name, in characters, that becomes a label."""


class ServiceFacts(Protocol):
    """What is read of a service when somebody asks for metrics."""

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


class ModelTally:
    """All that is counted for one model of a service."""

    __slots__ = ("durations", "first_tokens", "speeds", "statuses", "tokens_in", "tokens_out", "waits")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.durations = Histogram(REQUEST_BUCKETS)
        self.waits = Histogram(REQUEST_BUCKETS)
        self.first_tokens = Histogram(REQUEST_BUCKETS)
        self.speeds = Histogram(SPEED_BUCKETS)
        self.tokens_in = Histogram(TOKEN_BUCKETS)
        self.tokens_out = Histogram(TOKEN_BUCKETS)

    def add(self, inference: Inference) -> None:
        """Count a finished request; only a stream tells when its first token came."""
        status, tokens_in, tokens_out = inference.status, inference.tokens_in, inference.tokens_out
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.durations.observe(inference.seconds)
        self.waits.observe(inference.waited)
        if tokens_in >= 0:
            self.tokens_in.observe(tokens_in)
        if tokens_out >= 0:
            self.tokens_out.observe(tokens_out)
        if inference.streamed and status < 400 and inference.first_token >= 0.0:
            self.first_tokens.observe(inference.first_token)
            if (speed := inference.tokens_per_second) is not None:
                self.speeds.observe(speed)


class ServiceTally:
    """All that is counted for one service."""

    __slots__ = ("durations", "first_bytes", "loads", "models", "received", "sent", "states", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.durations = Histogram(REQUEST_BUCKETS)
        self.first_bytes = Histogram(REQUEST_BUCKETS)
        self.loads = Histogram(LOAD_BUCKETS)
        self.states: dict[str, int] = {}
        self.models: dict[str, ModelTally] = {}
        self.received = 0
        self.sent = 0

    def add(self, inference: Inference) -> None:
        """Count a finished request to a model as the exchange that it is."""
        status = inference.status
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.durations.observe(inference.seconds)
        if inference.first_byte >= 0.0:
            self.first_bytes.observe(inference.first_byte)
        self.received += inference.received
        self.sent += inference.sent


class Tallies:
    """A `core.ports.Recorder` that adds up.

    Labels are bounded. A service exists from its first state to `forget`; all others count as one. A model
    gets its own once the service has answered for it, up to MAX_MODELS of them; the rest counts as one.

    Requests to models are counted in batches: one after another that costs half of what it costs in between
    of everything else that a request does.
    """

    def __init__(self) -> None:
        self._other = ServiceTally()
        self._services: dict[str, ServiceTally] = {OTHER: self._other}
        self._uncounted: list[Inference] = []

    def __repr__(self) -> str:
        return f"<Tallies [{len(self._services) - 1} services]>"

    @property
    def services(self) -> Mapping[str, ServiceTally]:
        """What was counted, by id of the service; under OTHER what belongs to none."""
        self._count()
        return self._services

    def exchange(
        self, service_id: str, status: int, seconds: float, first_byte: float, received: int, sent: int
    ) -> None:
        """Record a finished exchange; see `core.ports.Recorder`."""
        tally = self._services.get(service_id, self._other)
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
        """Record a finished request to a model; see `core.ports.Recorder`."""
        uncounted = self._uncounted
        uncounted.append(inference)
        if len(uncounted) >= BATCH:
            self._count()

    def _count(self) -> None:
        """Count the requests to models that have not been."""
        for inference in self._uncounted:
            service = self._services.get(inference.service_id, self._other)
            service.add(inference)
            model = service.models.get(inference.model)
            if model is None:
                model = service.models.setdefault(self._label(service, inference), ModelTally())
            model.add(inference)
        self._uncounted.clear()

    def _label(self, service: ServiceTally, inference: Inference) -> str:
        """Return the label of a model that has none of its own yet."""
        if service is self._other:
            return OTHER
        name = inference.model
        shown = 0 < len(name) <= MAX_MODEL_NAME and name.isprintable()
        claims = shown and inference.status < 400 and len(service.models) < MAX_MODELS
        return name if claims else OTHER_MODELS

    def state(self, service_id: str, state: str) -> None:
        """Record that a service entered a state."""
        states = self._service(service_id).states
        states[state] = states.get(state, 0) + 1

    def started(self, service_id: str, seconds: float) -> None:
        """Record a start that reached READY, and how long it took."""
        self._service(service_id).loads.observe(seconds)

    def forget(self, service_id: str) -> None:
        """Drop what is held about a service that is no longer declared."""
        self._count()
        if service_id != OTHER:
            self._services.pop(service_id, None)

    def _service(self, service_id: str) -> ServiceTally:
        tally = self._services.get(service_id)
        if tally is None:
            tally = self._services[service_id] = ServiceTally()
        return tally
