"""A service: its declaration, and the persisted proof of a running instance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class RuntimeKind(StrEnum):
    """How a service is run."""

    # The built-in runtimes; a plug-in's runtime has any other name: see `PluginLaunch`.

    DOCKER = "docker"
    PROCESS = "process"
    SWARM = "swarm"
    EXTERNAL = "external"


class StartPolicy(StrEnum):
    """When the proxy starts a service."""

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
        base_path: Prefix of every path; empty, or `/prefix` without a trailing slash.
        unix_path: A Unix socket to connect to instead of host and port.
    """

    host: str
    port: int
    tls: bool = False
    base_path: str = ""
    unix_path: str | None = None

    @property
    def url(self) -> str:
        """The address as a URL.

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
        fallback: Replaces the program (the first word) when that is not on PATH; empty for none.
        env: Environment variables.
        inherit_env: Whether it gets the proxy's whole environment besides; otherwise what a program needs to
            find its libraries, devices and caches.
        workdir: Working directory; None for the proxy's own.
        port: Fixed port the backend listens on, on 127.0.0.1; None for a free one chosen at each start.
    """

    command: tuple[str, ...]
    fallback: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    workdir: str | None = None
    port: int | None = None
    inherit_env: bool = False

    @property
    def runtime(self) -> str:
        """The name of the runtime that runs it."""
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
        """The name of the runtime that runs it."""
        return RuntimeKind.DOCKER


@dataclass(frozen=True, slots=True)
class ExternalLaunch:
    """A backend that the proxy does not run: it monitors it, but never starts or stops it."""

    upstreams: tuple[Upstream, ...]

    @property
    def runtime(self) -> str:
        """The name of the runtime that runs it."""
        return RuntimeKind.EXTERNAL


@dataclass(frozen=True, slots=True)
class PluginLaunch:
    """A backend run by a plug-in's runtime.

    Attributes:
        runtime: The name of that runtime.
        options: Options from the configuration, which only the runtime interprets.
    """

    runtime: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)


type Launch = ProcessLaunch | DockerLaunch | ExternalLaunch | PluginLaunch


@dataclass(frozen=True, slots=True)
class Resources:
    """Memory that a service declares, in MB; 0 when it declares none."""

    memory_mb: int = 0
    vram_mb: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A declared, named backend.

    All durations are in seconds.

    Attributes:
        id: Its name in paths, logs and commands.
        type: The template it was declared with.
        engine: Its engine: `llamacpp`, `vllm`, ..., `generic`.
        launch: How it is run.
        config_hash: Changes exactly when a running instance no longer matches its declaration.
        models: Names of its models; empty for its id and the models that the engine lists.
        aliases: Additional model names, each with the name in its engine.
        api_key: Sent to the backend instead of the client's key.
        health_path: Path whose status shows readiness; None when accepting a connection is enough.
        idle_timeout: Idle time after which it is stopped; 0 for never.
        start_timeout: Longest time from start to ready.
        stop_grace: Time between the request to stop and the kill.
        drain_timeout: Longest wait for requests in flight before an unload, a restart or a reload stops it.
        response_timeout: Longest wait for the head of a response; 0 for no limit.
        stream_idle_timeout: Longest pause within a response; 0 for no limit.
        max_waiting: Maximum number of waiting requests.
        keep_on_exit: Whether it keeps running when the proxy exits.
        set_params: Parameters set in every model request; they override the client's.
        default_params: Parameters set in model requests that lack them.
        drop_params: Parameters removed from every model request.
        heartbeat: Whether a streaming client gets comments while the service starts.
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
"""The current version of handles; increased whenever an older proxy would misread one."""


@dataclass(frozen=True, slots=True)
class Handle:
    """Persisted proof of a running thing.

    A handle with a version other than `HANDLE_VERSION` is an orphan: this proxy cannot interpret it, so it
    never adopts it. Recovery stops it by its `ref` like every orphan, since a second instance beside it
    would need the memory twice; if that fails, recovery logs it and leaves it alone.

    Attributes:
        service_id: The service it belongs to.
        config_hash: Hash of the declaration it was started with.
        ref: The runtime's name for it: a pid, a container id, a URL.
        started: Start time in seconds, by a clock of the runtime's that is the same for all that runs;
            together with `ref` it is unique, although the system reuses pids.
        upstreams: Its addresses.
        version: The version of the handle.
        mark: Found on everything that this start left running; empty where `ref` stands for all of it.
    """

    service_id: str
    config_hash: str
    ref: str
    started: float
    upstreams: tuple[Upstream, ...]
    version: int = HANDLE_VERSION
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a running thing ended.

    Attributes:
        code: Exit code; negative for a signal, as in `subprocess`; None when unknown.
        detail: Description.
    """

    code: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class UpstreamsChanged:
    """The addresses of a running thing differ from those in its handle.

    Attributes:
        upstreams: Its current addresses; never empty.
    """

    upstreams: tuple[Upstream, ...]


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """Resource usage of a running thing, as last measured; sizes in bytes.

    Attributes:
        at: When it was measured, in seconds since the epoch.
        cpu_percent: CPU usage; 100 is one core. None until there are two measurements.
        memory: Memory in use, without the file cache that the kernel can drop at any time.
        memory_rss: The part of it that processes have written; excludes mapped model files.
        memory_limit: Its own limit, or else the memory of the machine.
        network_received: Bytes received since its start.
        network_sent: Bytes sent since its start.
        pids: Number of processes and threads.
        gpu_memory: Memory on all its GPUs; None when it cannot be measured.
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
"""A runtime's report about a running thing."""


class LeaseHolder(Protocol):
    """The running instance that gave a lease and takes it back; several may have the same service's name."""

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
        upstream: The address to send the request to.
        holder: The instance that gave it.
        classified: Whether the outcome on this upstream has been counted.
        released: Whether it has been given back.
    """

    service_id: str
    upstream: Upstream
    holder: LeaseHolder
    classified: bool = False
    released: bool = False


class Outcome(StrEnum):
    """How the use of a lease ended, as far as the upstream caused it."""

    OK = "ok"
    CLIENT_GONE = "client_gone"
    CONNECT_FAILED = "connect_failed"
    BROKEN = "broken"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
