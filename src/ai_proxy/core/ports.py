"""Ports to the outside world; runtimes, engines, telemetry and fakes implement them."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ai_proxy.core.abilities import Abilities, Modality
from ai_proxy.core.detection import Detection
from ai_proxy.core.logring import LogRing
from ai_proxy.core.placement import Placement
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import Handle, Lease, Outcome, Report, Service, Upstream
from ai_proxy.core.usage import RequestRecord

type Tell = Callable[[str], None]
"""Receives the progress of an operation, as text."""


class Clock(Protocol):
    """Time, as a port so that tests control it."""

    def now(self) -> float:
        """Return monotonic seconds; for durations and deadlines."""

    def wall(self) -> float:
        """Return seconds since the epoch; for times that are shown or stored."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


@dataclass(frozen=True, slots=True)
class RuntimeCapabilities:
    """The capabilities that a runtime declares; callers use them instead of its class.

    Attributes:
        owns: Whether it starts and stops what it runs. Otherwise health checks monitor its services, and the
            proxy never stops them when they are idle.
    """

    owns: bool = True


class Runtime(Protocol):
    """Runs services.

    Every method may be cancelled. `handles` is the source of truth for ownership: it lists everything that
    `start` may have left behind, even after a cancellation or a lost response.
    """

    @property
    def capabilities(self) -> RuntimeCapabilities:
        """The capabilities of this runtime."""

    async def start(self, service: Service, placement: Placement, tell: Tell) -> Handle:
        """Launch the service; return as soon as it is running, ready or not.

        Args:
            service: What to launch.
            placement: The placement that the scheduler chose.
            tell: Called with the progress of a long start: `pulling image: 3 of 7 layers`. Each call shows
                that the start is alive, and extends its time limit.

        Raises:
            RuntimeFailureError: The launch failed, and left nothing behind.
        """

    async def stop(self, handle: Handle, grace: float) -> None:
        """Ask it to stop, kill it after `grace` seconds, and return when nothing of it runs.

        Stopping something that has ended is not an error.

        Raises:
            RuntimeFailureError: It may still be running.
        """

    def watch(self, handle: Handle) -> AsyncGenerator[Report, None]:
        """Yield reports until it has ended; the last report is the only `Exit`.

        Several callers may watch one handle. If it has already ended, the exit is the first report. While the
        runtime is away, this yields nothing, or raises and the caller watches again.

        Raises:
            RuntimeFailureError: The runtime does not respond now.
        """

    async def handles(self) -> Sequence[Handle]:
        """Return what runs now and belongs to this proxy, including what it ran before a restart.

        A handle written by another version of the proxy keeps its version and cannot be adopted: see
        `Handle.version`.

        Raises:
            RuntimeFailureError: The runtime does not respond now.
        """

    def logs(self, service_id: str) -> LogRing:
        """Return the ring that holds the last lines of the service's output."""

    def listener_fault(self, handle: Handle) -> str:
        """Return why what accepts connections at the handle's address is not what was started.

        Empty when it is, or when nobody can have taken the address. Asked before every probe and with every
        new connection to the upstream, before anything is sent on it: so it returns at once.
        """


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of probing an engine's readiness.

    Attributes:
        ready: Whether it can serve requests.
        detail: Description: `loading model`, `connection refused`.
    """

    ready: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model an engine lists.

    Attributes:
        id: Name of the model in the engine.
        context_length: In tokens; None when the engine does not report it.
        modalities: Modalities it accepts besides text; None when the engine does not report them.
        kind: `chat`, `embeddings`, ...; empty when the engine does not report it.
    """

    id: str
    context_length: int | None = None
    modalities: frozenset[Modality] | None = None
    kind: str = ""


class Engine(Protocol):
    """The software that serves models."""

    @property
    def name(self) -> str:
        """The engine's name as services declare it."""

    @property
    def abilities(self) -> Abilities:
        """Its abilities: endpoints, parameters, modalities."""

    async def probe(self, service: Service, upstream: Upstream) -> Probe:
        """Check readiness: health path, then model list. Never raises; returns within a few seconds."""

    async def models(self, service: Service, upstream: Upstream) -> Sequence[Model]:
        """Return the models it lists; empty when it lists none or does not respond."""


class EngineCache(Protocol):
    """Caches detections of engines; expired ones disappear.

    Attributes:
        ttl: Lifetime of a detection, in seconds.
    """

    ttl: float

    async def get(self, engine: str) -> Detection | None:
        """Return the cached detection of an engine; None when there is none."""

    async def put(self, detection: Detection) -> None:
        """Cache a detection."""

    async def drop(self, engine: str) -> None:
        """Remove the detection of an engine."""


class EngineDetector(Protocol):
    """Detects engines that the proxy did not start."""

    async def detect(self, engine: str | None = None, *, fresh: bool = False) -> Sequence[Detection]:
        """Return the state of each engine; an engine that does not respond has a state as well.

        Args:
            engine: The only engine to detect; None for all.
            fresh: Whether to ignore the cache.

        Raises:
            UnknownEngineError: The proxy does not detect an engine of that name.
        """

    async def forget(self, engine: str) -> None:
        """Invalidate the cached detection of an engine, since it may have changed."""


class Admission(Protocol):
    """The interface of the control plane to the data plane."""

    def acquire(self, service_id: str) -> Lease | None:
        """Return a lease when the service is ready, else None. Immediate."""

    async def admit(self, ask: Ask) -> Lease:
        """Wait for a lease, and start the service if necessary; cancellation leaves the queue.

        Raises:
            ProxyError: The request cannot be served; the error says why.
        """

    def wait_reason(self, service_id: str) -> str:
        """Return why a request for the service waits now; empty when it would not wait.

        For example `llama3 is loading, 12 of about 40 s`. The reason changes while a request waits.
        """

    def move(self, lease: Lease, outcome: Outcome, retry_after: float = 0.0) -> bool:
        """Move a lease to another replica, since its upstream failed; False when there is none to try.

        Args:
            lease: The lease; it gets another upstream.
            outcome: How its upstream failed.
            retry_after: Seconds in that upstream's Retry-After; 0 without one.
        """

    def stands(self, lease: Lease) -> bool:
        """Return whether the instance of a lease still runs; if not, another program may have its address."""

    def release(self, lease: Lease, outcome: Outcome) -> None:
        """Give a lease back."""

    def unload(self, service_id: str) -> None:
        """Stop a service after its requests in flight; the next request may start it again."""

    def load_time(self, service_id: str) -> float | None:
        """Return the seconds that the last start took; None before the first one."""


class Recorder(Protocol):
    """Receives measurements."""

    def exchange(
        self, service_id: str, status: int, seconds: float, first_byte: float, received: int, sent: int
    ) -> None:
        """Record a finished exchange.

        Args:
            service_id: The service; empty for the proxy's own answers.
            status: HTTP status sent; 499 when the client left first, 599 when the response broke off.
            seconds: From the head of the request to the end of the response.
            first_byte: From the head of the request to the first byte of the response; negative for none.
            received: Body bytes from the client.
            sent: Body bytes to the client.
        """

    def finished(self, record: RequestRecord) -> None:
        """Record a finished model request; it is not recorded as an exchange as well."""

    def settle(self) -> None:
        """Process what was deferred; called about once a second."""

    def state(self, service_id: str, state: str) -> None:
        """Record that a service entered a state."""

    def started(self, service_id: str, seconds: float) -> None:
        """Record a start that reached READY, and how long it took."""

    def forget(self, service_id: str) -> None:
        """Drop the data about a service that is no longer declared."""


class Tracing(Protocol):
    """The tracing that the data plane uses, if any."""

    def begin(self, traceparent: bytes) -> bytes:
        """Return the traceparent to pass on; empty to leave the client's as it is.

        Args:
            traceparent: The client's, whatever it sent; empty for none.
        """
