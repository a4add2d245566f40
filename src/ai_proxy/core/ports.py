"""What the proxy asks of the outside world; implemented by runtimes, engines, telemetry, and fakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ai_proxy.core.abilities import Abilities, Modality
from ai_proxy.core.detection import Detection
from ai_proxy.core.logring import LogRing
from ai_proxy.core.service import ContainerStats, Exit, Handle, Lease, Outcome, Service, Upstream
from ai_proxy.core.usage import RequestRecord


class Clock(Protocol):
    """Time, so that tests own it."""

    def now(self) -> float:
        """Return monotonic seconds; for durations and deadlines."""

    def wall(self) -> float:
        """Return seconds since the epoch; for people."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


class Runtime(Protocol):
    """How services are run.

    Every method may be cancelled. `handles` is the truth that ownership rests on: whatever `start` may have
    left behind, even when it was cancelled or its answer was lost, is listed there.
    """

    async def start(self, service: Service) -> Handle:
        """Launch the service; return as soon as it runs, ready or not.

        Raises:
            RuntimeFailureError: It could not be launched; nothing is left behind.
        """

    async def stop(self, handle: Handle, grace: float) -> None:
        """End it politely, after `grace` seconds by force; return only when nothing of it runs.

        Stopping what has already ended is not an error.

        Raises:
            RuntimeFailureError: It may still be running.
        """

    async def wait(self, handle: Handle) -> Exit:
        """Return when it has ended and nothing of it runs; at once when it had ended before."""

    async def handles(self) -> Sequence[Handle]:
        """Return what runs now and is ours, also from before a restart of the proxy.

        Raises:
            RuntimeFailureError: It cannot be told now.
        """

    def logs(self, service_id: str) -> LogRing:
        """Return the ring that holds the last lines of the service's output."""


@runtime_checkable
class ContainerRuntime(Runtime, Protocol):
    """A runtime that tells more of what it runs."""

    def progress(self, service_id: str) -> str:
        """Say what a start under way is busy with: `pulling image: 3 of 7 layers, ...`; empty for nothing."""

    def stats(self, handle: Handle) -> ContainerStats | None:
        """Return what it uses, as last measured; None when that is not known."""


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
    def capabilities(self) -> frozenset[str]:
        """What it can do: `chat`, `stream`, `embeddings`, `tools`, `vision`, `audio`."""

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
        """Return how each engine stands. Never fails: what cannot be asked is told as a state.

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

    async def admit(self, service_id: str) -> Lease:
        """Wait for a lease, starting the service if need be; cancelling gives up the place.

        Raises:
            ProxyError: The request cannot be served; says why.
        """

    def move(self, lease: Lease, outcome: Outcome, retry_after: float = 0.0) -> bool:
        """Move a lease to another replica, since its upstream failed; False when there is none to try.

        Args:
            lease: Goes on, with another upstream.
            outcome: How its upstream failed.
            retry_after: What that upstream asked for, in seconds; 0 when it did not.
        """

    def stands(self, lease: Lease) -> bool:
        """Tell whether what a lease was given for still runs: else its address may be another's by now."""

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
