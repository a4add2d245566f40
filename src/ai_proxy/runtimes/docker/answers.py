"""What the Engine API answers, as far as the proxy reads it.

Each class names a part of https://docs.docker.com/reference/api/engine/. What an engine may leave out has a
default; what is of another type than documented is an error of the engine.
"""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct, field


class _Document(Struct, frozen=True, rename="pascal"):
    """An answer with keys in Pascal case."""


class ContainerState(_Document, frozen=True):
    """Of an inspected container."""

    started_at: Annotated[datetime, Meta(tz=True)]
    running: bool = False
    status: str = ""
    oom_killed: bool = field(name="OOMKilled", default=False)


class ContainerConfig(_Document, frozen=True):
    """Of an inspected container."""

    labels: dict[str, str] | None = None


class Endpoint(_Document, frozen=True):
    """A container in one network."""

    ip_address: str = field(name="IPAddress", default="")
    gateway: str = ""


class PortBinding(_Document, frozen=True):
    """Where a port is published."""

    host_port: str = ""


class NetworkSettings(_Document, frozen=True):
    """Of an inspected container."""

    networks: dict[str, Endpoint] | None = None
    ports: dict[str, list[PortBinding] | None] | None = None


class Container(_Document, frozen=True):
    """ContainerInspect."""

    id: str
    config: ContainerConfig
    state: ContainerState
    network_settings: NetworkSettings = NetworkSettings()

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the container."""
        return self.config.labels or {}


class ContainerId(_Document, frozen=True):
    """ContainerCreate, and each of ContainerList."""

    id: str


class ContainerWait(_Document, frozen=True):
    """ContainerWait."""

    status_code: int


class ContainerTop(_Document, frozen=True):
    """ContainerTop."""

    titles: list[str]
    processes: list[list[str]] | None = None


class SystemInfo(_Document, frozen=True):
    """SystemInfo."""

    name: str = ""
    kernel_version: str = ""
    mem_total: int = 0
    security_options: list[str] | None = None


class SystemVersion(_Document, frozen=True):
    """SystemVersion."""

    version: str


class Actor(_Document, frozen=True):
    """What an event happened to."""

    attributes: dict[str, str] | None = None


class Event(Struct, frozen=True):
    """One of SystemEvents."""

    action: str = field(name="Action", default="")
    actor: Actor | None = field(name="Actor", default=None)
    time: int = field(name="timeNano", default=0)


class Refusal(Struct, frozen=True):
    """An answer with an error status."""

    message: str


class PullDetail(Struct, frozen=True):
    """Bytes of a layer."""

    current: int = 0
    total: int = 0


class PullReport(Struct, frozen=True):
    """One of ImageCreate."""

    status: str = ""
    id: str = ""
    detail: PullDetail | None = field(name="progressDetail", default=None)
    error: str = ""


class CpuUsage(Struct, frozen=True):
    """Nanoseconds."""

    total_usage: int = 0
    percpu_usage: list[int] | None = None


class CpuStats(Struct, frozen=True):
    """The use of the processors at one moment."""

    cpu_usage: CpuUsage = CpuUsage()
    system_cpu_usage: int | None = None
    online_cpus: int | None = None


class MemoryStats(Struct, frozen=True):
    """Bytes; the keys of `stats` differ between control groups v1 and v2."""

    usage: int | None = None
    limit: int = 0
    stats: dict[str, int] | None = None


class NetworkStats(Struct, frozen=True):
    """Bytes through one interface."""

    rx_bytes: int = 0
    tx_bytes: int = 0


class PidsStats(Struct, frozen=True):
    """Processes and threads."""

    current: int = 0


class Stats(Struct, frozen=True):
    """One of ContainerStats."""

    cpu_stats: CpuStats = CpuStats()
    precpu_stats: CpuStats = CpuStats()
    memory_stats: MemoryStats = MemoryStats()
    networks: dict[str, NetworkStats] | None = None
    pids_stats: PidsStats = PidsStats()
