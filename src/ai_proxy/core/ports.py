"""What the proxy asks of the outside world; implemented by runtimes, engines, telemetry, and fakes."""

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
"""Takes the progress of something under way, in words for people."""


class Clock(Protocol):
    """Time, so that tests own it."""

    def now(self) -> float:
        """Return monotonic seconds; for durations and deadlines."""

    def wall(self) -> float:
        """Return seconds since the epoch; for people."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


@dataclass(frozen=True, slots=True)
class RuntimeCapabilities:
    """What a runtime declares that it can do; nobody asks for its class.

    Attributes:
        owns: Whether it starts and ends what it runs. What it does not own runs by itself: it is watched by
            health checks, and never stopped for lack of use.
    """

    owns: bool = True


class Runtime(Protocol):
    """How services are run.

    Every method may be cancelled. `handles` is the truth that ownership rests on: it lists whatever `start`
    may have left behind, even after a cancellation or a lost answer.
    """

    @property
    def capabilities(self) -> RuntimeCapabilities:
        """What this runtime can do."""

    async def start(self, service: Service, placement: Placement, tell: Tell) -> Handle:
        """Launch the service; return as soon as it runs, ready or not.

        Args:
            service: What to launch.
            placement: Where, as the scheduler chose.
            tell: Takes the progress of a long start, in words: `pulling image: 3 of 7 layers`. Each call
                shows that the start is alive, and extends its time limit.

        Raises:
            RuntimeFailureError: It could not be launched; nothing is left behind.
        """

    async def stop(self, handle: Handle, grace: float) -> None:
        """End it politely, after `grace` seconds by force; return only when nothing of it runs.

        Stopping what has already ended is not an error.

        Raises:
            RuntimeFailureError: It may still be running.
        """

    def watch(self, handle: Handle) -> AsyncGenerator[Report, None]:
        """Report on what runs until it has ended; the last report is the only `Exit`.

        Several may watch one handle. When it had ended before, the exit is the first report. While the
        runtime itself is away there are no reports, or a failure is raised and the caller watches again.

        Raises:
            RuntimeFailureError: The runtime cannot be asked now.
        """

    async def handles(self) -> Sequence[Handle]:
        """Return what runs now and is ours, also from before a restart of the proxy.

        A handle that another version of the proxy has written is listed with its own version, and cannot be
        adopted: see `Handle.version`.

        Raises:
            RuntimeFailureError: The runtime cannot be asked now.
        """

    def logs(self, service_id: str) -> LogRing:
        """Return the ring that holds the last lines of the service's output."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What an engine said about its readiness.

    Attributes:
        ready: Whether it can answer requests.
        detail: In words, for people: `loading model`, `connection refused`.
    """

    ready: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model an engine lists.

    Attributes:
        id: As the engine calls it.
        context_length: In tokens; None when the engine does not say.
        modalities: What it takes beside text; None when the engine does not say.
        kind: `chat`, `embeddings`, ...; empty when the engine does not say.
    """

    id: str
    context_length: int | None = None
    modalities: frozenset[Modality] | None = None
    kind: str = ""


class Engine(Protocol):
    """The software that answers."""

    @property
    def name(self) -> str:
        """The engine's name as services declare it."""

    @property
    def abilities(self) -> Abilities:
        """What it can do of the APIs that clients speak."""

    async def probe(self, service: Service, upstream: Upstream) -> Probe:
        """Ask for readiness: health path, then model list. Never raises; answers within a few seconds."""

    async def models(self, service: Service, upstream: Upstream) -> Sequence[Model]:
        """Return the models it lists; empty when it cannot tell."""


class EngineCache(Protocol):
    """Remembers for a while what was found out about engines; what is too old vanishes by itself.

    Attributes:
        ttl: For how long, in seconds.
    """

    ttl: float

    async def get(self, engine: str) -> Detection | None:
        """Return what is known of an engine; None when that is nothing, or too old."""

    async def put(self, detection: Detection) -> None:
        """Remember what was found out."""

    async def drop(self, engine: str) -> None:
        """Forget an engine."""


class EngineDetector(Protocol):
    """Finds the engines that run by themselves."""

    async def detect(self, engine: str | None = None, *, fresh: bool = False) -> Sequence[Detection]:
        """Return the state of each engine. Never fails: an engine that cannot be asked has a state, too.

        Args:
            engine: The only one to look at; None for all.
            fresh: Whether to ask again what is remembered.

        Raises:
            UnknownEngineError: No engine of that name is looked for.
        """

    async def forget(self, engine: str) -> None:
        """Have an engine asked again, since it may have changed."""


class Admission(Protocol):
    """All that the data plane needs of the control plane."""

    def acquire(self, service_id: str) -> Lease | None:
        """Return a lease when the service is ready, else None. Immediate."""

    async def admit(self, ask: Ask) -> Lease:
        """Wait for a lease, starting the service if need be; cancelling gives up the place.

        Raises:
            ProxyError: The request cannot be served; says why.
        """

    def wait_reason(self, service_id: str) -> str:
        """Return why a request for the service waits now, in words; empty when it would not wait.

        For example `llama3 is loading, 12 of about 40 s`. The words change while a request waits.
        """

    def move(self, lease: Lease, outcome: Outcome, retry_after: float = 0.0) -> bool:
        """Move a lease to another replica, since its upstream failed; False when there is none to try.

        Args:
            lease: Goes on, with another upstream.
            outcome: How its upstream failed.
            retry_after: What that upstream asked for, in seconds; 0 when it did not.
        """

    def stands(self, lease: Lease) -> bool:
        """Return whether the instance of a lease still runs: else its address may be another's by now."""

    def release(self, lease: Lease, outcome: Outcome) -> None:
        """Give a lease back."""

    def unload(self, service_id: str) -> None:
        """Have a service stopped after its requests in flight; the next request may start it again."""

    def load_time(self, service_id: str) -> float | None:
        """Return the seconds that a start takes, as learned from the last one; None before."""


class Recorder(Protocol):
    """Where measurements go."""

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
        """Record a finished request to a model; it is not told as an exchange besides."""

    def settle(self) -> None:
        """Do what was put off: called about once a second, so that nobody waits long to be told."""

    def state(self, service_id: str, state: str) -> None:
        """Record that a service entered a state."""

    def started(self, service_id: str, seconds: float) -> None:
        """Record a start that reached READY, and how long it took."""

    def forget(self, service_id: str) -> None:
        """Drop what is held about a service that is no longer declared."""


class Tracing(Protocol):
    """What the data plane asks of tracing; where there is none, it is not asked."""

    def begin(self, traceparent: bytes) -> bytes:
        """Return the traceparent to pass on; empty to leave the client's as it is.

        Args:
            traceparent: The client's, whatever it sent; empty for none.
        """
