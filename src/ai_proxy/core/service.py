"""What a service is: its declaration, and the proof of a running instance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class RuntimeKind(StrEnum):
    """How a service is run."""

    # Those that the configuration knows; a runtime of a plug-in has any other name: see `PluginLaunch`.

    DOCKER = "docker"
    PROCESS = "process"
    SWARM = "swarm"
    EXTERNAL = "external"


class StartPolicy(StrEnum):
    """When a service is started."""

    ON_DEMAND = "on_demand"
    MANUAL = "manual"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Upstream:
    """An address of a ready service.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        tls: Whether to speak TLS to it.
        base_path: Put in front of every path; empty or `/prefix` without a trailing slash.
        unix_path: A Unix socket to connect to instead of host and port.
    """

    host: str
    port: int
    tls: bool = False
    base_path: str = ""
    unix_path: str | None = None

    @property
    def url(self) -> str:
        """The address as people write it.

        >>> Upstream("127.0.0.1", 8080).url
        'http://127.0.0.1:8080'
        >>> Upstream("::1", 443, tls=True, base_path="/llm").url
        'https://[::1]:443/llm'
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.base_path}"


@dataclass(frozen=True, slots=True)
class ProcessLaunch:
    """A backend run as a child process.

    Attributes:
        command: Program and arguments; `${port}` in any of them becomes the port chosen at start.
        fallback: Replaces the program (the first word) when that is not on PATH; empty: none.
        env: Variables added to the proxy's own environment.
        workdir: Working directory; None for the proxy's own.
        port: Fixed port the backend listens on, on 127.0.0.1; None for a free one chosen at each start.
    """

    command: tuple[str, ...]
    fallback: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    workdir: str | None = None
    port: int | None = None

    @property
    def runtime(self) -> str:
        """The name of the runtime that carries this out."""
        return RuntimeKind.PROCESS


@dataclass(frozen=True, slots=True)
class Mount:
    """A host folder or file seen inside a container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """A container's own health check; durations in seconds."""

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0


@dataclass(frozen=True, slots=True)
class DockerLaunch:
    """A backend run as a container.

    Attributes:
        image: Image reference.
        port: Port inside the container.
        args: Arguments after the image's entry point.
        command: Replaces the image's entry point; empty keeps it.
        host_port: Port on 127.0.0.1; None for a free one.
        gpus: Nothing, `all`, a count as digits, or `device=ID` for each device.
        memory_mb: Memory limit in MB; None for no limit.
        cpus: CPU limit in cores; None for no limit.
        pids: Limit of processes and threads; None for no limit.
        shm_size_mb: Size of /dev/shm in MB; None for the engine's default.
        pull: `missing`, `always` or `never`.
    """

    image: str
    port: int
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    host_port: int | None = None
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    gpus: tuple[str, ...] = ()
    memory_mb: int | None = None
    cpus: float | None = None
    pids: int | None = None
    shm_size_mb: int | None = None
    read_only: bool = False
    cap_drop: tuple[str, ...] = ()
    user: str | None = None
    networks: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    pull: str = "missing"

    @property
    def runtime(self) -> str:
        """The name of the runtime that carries this out."""
        return RuntimeKind.DOCKER


@dataclass(frozen=True, slots=True)
class ExternalLaunch:
    """A backend that somebody else runs; it is watched, never started or stopped."""

    upstreams: tuple[Upstream, ...]

    @property
    def runtime(self) -> str:
        """The name of the runtime that carries this out."""
        return RuntimeKind.EXTERNAL


@dataclass(frozen=True, slots=True)
class PluginLaunch:
    """A backend run by a runtime that is added by an entry point.

    Attributes:
        runtime: The name of that runtime.
        options: What the configuration says, for the runtime alone to read.
    """

    runtime: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)


type Launch = ProcessLaunch | DockerLaunch | ExternalLaunch | PluginLaunch


@dataclass(frozen=True, slots=True)
class Resources:
    """What a service declares that it needs, in MB; 0 when it declares nothing."""

    memory_mb: int = 0
    vram_mb: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A declared, named backend.

    All durations are in seconds.

    Attributes:
        id: Its name in paths, logs and commands.
        type: The template it was declared with.
        engine: The software that answers: `llamacpp`, `vllm`, ..., `generic`.
        launch: How it is run.
        config_hash: Changes exactly when a running instance no longer matches its declaration.
        models: Names it answers to; empty for its id and what the engine lists.
        aliases: More names it answers to, each with what its engine is asked for instead.
        api_key: Sent to the backend instead of the client's key.
        health_path: Path whose status shows readiness; None when accepting a connection is enough.
        idle_timeout: Unused time after which it is stopped; 0 for never.
        start_timeout: Longest time from start to ready.
        stop_grace: Time between the polite and the forced end.
        drain_timeout: Longest wait for requests in flight before an unload, a restart or a reload stops it.
        response_timeout: Longest wait for the head of a response; 0 for no limit.
        stream_idle_timeout: Longest silence within a response; 0 for no limit.
        max_waiting: Requests that may wait for it at once.
        keep_on_exit: Whether it goes on running when the proxy ends.
        set_params: Put into every request to a model, in place of what the client says.
        default_params: Put into every request to a model that does not say otherwise.
        drop_params: Taken out of every request to a model.
        heartbeat: Whether the client of a stream gets a comment now and then while its service starts.
    """

    id: str
    type: str
    engine: str
    launch: Launch
    config_hash: str
    start: StartPolicy = StartPolicy.ON_DEMAND
    models: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    api_key: str | None = field(default=None, repr=False)
    health_path: str | None = "/health"
    idle_timeout: float = 600.0
    start_timeout: float = 300.0
    stop_grace: float = 10.0
    drain_timeout: float = 30.0
    response_timeout: float = 600.0
    stream_idle_timeout: float = 300.0
    max_waiting: int = 1000
    keep_on_exit: bool = False
    resources: Resources = Resources()
    set_params: Mapping[str, object] = field(default_factory=dict)
    default_params: Mapping[str, object] = field(default_factory=dict)
    drop_params: tuple[str, ...] = ()
    heartbeat: bool = True


HANDLE_VERSION = 1
"""The version in which handles are written now; raised whenever an older proxy would misread one."""


@dataclass(frozen=True, slots=True)
class Handle:
    """Persisted proof of a running thing.

    A handle of another version than `HANDLE_VERSION` is an orphan: this proxy cannot tell what was started,
    so it never adopts it. Recovery ends it by its `ref` like every orphan, since a second instance beside it
    would take the memory twice; where even that fails, it is logged and left alone.

    Attributes:
        service_id: The service it belongs to.
        config_hash: Of the declaration it was started with.
        ref: What the runtime calls it: a pid, a container id, a URL.
        started: Start time according to the system, in seconds since the epoch; with `ref` it names one
            instance for ever, since pids are used again.
        upstreams: Where it answers.
        version: In which it was written.
    """

    service_id: str
    config_hash: str
    ref: str
    started: float
    upstreams: tuple[Upstream, ...]
    version: int = HANDLE_VERSION


@dataclass(frozen=True, slots=True)
class Exit:
    """How a running thing ended.

    Attributes:
        code: Exit code; negative for a signal, as in `subprocess`; None when it cannot be known.
        detail: In words, for people.
    """

    code: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class UpstreamsChanged:
    """A running thing answers elsewhere, or at more or fewer addresses, than its handle says.

    Attributes:
        upstreams: Where it answers now; never empty.
    """

    upstreams: tuple[Upstream, ...]


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What a running thing uses, as last measured; sizes in bytes.

    Attributes:
        at: When it was measured, in seconds since the epoch.
        cpu_percent: Of one core: 200 is two cores; None until there are two measurements.
        memory: In use, without the file cache that the kernel can drop at any time.
        memory_rss: Of that, what processes have written themselves; a mapped model file is not in it.
        memory_limit: What it may use at most: its own limit, or all the memory there is.
        network_received: Since its start.
        network_sent: Since its start.
        pids: Processes and threads.
        gpu_memory: Held on all GPUs together; None where it cannot be measured.
    """

    at: float
    cpu_percent: float | None
    memory: int
    memory_rss: int
    memory_limit: int
    network_received: int
    network_sent: int
    pids: int
    gpu_memory: int | None = None


type Report = UpstreamsChanged | ResourceUsage | Exit
"""What a runtime reports of a running thing."""


class LeaseHolder(Protocol):
    """Whoever gave a lease, and takes it back; one running instance, however many have its service's name."""

    def release(self, lease: "Lease", outcome: "Outcome") -> None:
        """Take a lease back."""

    def move(self, lease: "Lease", outcome: "Outcome", retry_after: float) -> bool:
        """Move a lease to another upstream; False when there is none to try."""

    def stands(self, lease: "Lease") -> bool:
        """Return whether the upstream of a lease still is that of the running instance."""


@dataclass(slots=True, eq=False)
class Lease:
    """One request's right to use an upstream; given back exactly once.

    Attributes:
        service_id: The service.
        upstream: Where the request may go.
        holder: Who gave it.
        classified: Whether the outcome on this upstream has been counted already.
        released: Whether it has been given back.
    """

    service_id: str
    upstream: Upstream
    holder: LeaseHolder
    classified: bool = False
    released: bool = False


class Outcome(StrEnum):
    """How the use of a lease ended, as far as the upstream is to blame."""

    OK = "ok"
    CLIENT_GONE = "client_gone"
    CONNECT_FAILED = "connect_failed"
    BROKEN = "broken"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
