"""What a container uses: parsed from the engine's reports, kept from one stream held while it lives."""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ai_proxy.core.errors import RuntimeUnavailableError
from ai_proxy.core.service import ResourceUsage
from ai_proxy.runtimes.docker.api import DockerApi, Json, RefusedError

RETRY = 2.0
"""Seconds between two tries to listen while the engine is away."""

SILENCE = 30.0
"""Longest wait for the next report, in seconds; they come every second."""

GPU_EVERY = 5.0
"""Seconds between two looks at the GPUs."""

type GpuMemory = Callable[[Collection[int]], int | None]
"""Returns the bytes that processes of the machine, by pid, hold on GPUs; None when that cannot be told."""


def parse_stats(report: Json, at: float) -> ResourceUsage | None:
    """Return what a report says (ResourceUsage); None when the container does not run.

    Args:
        report: As the engine sends it.
        at: When it came, in seconds since the epoch.
    """
    memory: dict[str, Any] = report.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    networks = (report.get("networks") or {}).values()
    return ResourceUsage(
        at=at,
        cpu_percent=cpu_percent(report.get("precpu_stats") or {}, report.get("cpu_stats") or {}),
        memory=used_memory(memory),
        memory_rss=resident_memory(memory),
        memory_limit=memory.get("limit", 0),
        network_received=sum(network["rx_bytes"] for network in networks),
        network_sent=sum(network["tx_bytes"] for network in networks),
        pids=(report.get("pids_stats") or {}).get("current", 0),
    )


def used_memory(memory: Json) -> int:
    """Return the memory in use less the file cache that nobody has used lately, as `docker stats` shows it.

    The kernel's control groups call that `total_inactive_file` (v1) or `inactive_file` (v2).

    >>> used_memory({"usage": 100, "stats": {"total_inactive_file": 30, "inactive_file": 5}})
    70
    >>> used_memory({"usage": 100, "stats": {"inactive_file": 5}})
    95
    """
    stats: dict[str, int] = memory.get("stats") or {}
    inactive = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    return max(0, int(memory["usage"]) - inactive)


def resident_memory(memory: Json) -> int:
    """Return the memory that processes have written: `total_rss` (control groups v1) or `anon` (v2).

    >>> resident_memory({"stats": {"total_rss": 7, "rss": 3}}), resident_memory({"stats": {"anon": 5}})
    (7, 5)
    """
    stats: dict[str, int] = memory.get("stats") or {}
    return next((stats[name] for name in ("total_rss", "rss", "anon") if name in stats), 0)


def cpu_percent(before: Json, now: Json) -> float | None:
    """Return the use of the processors between two reports, in percent of one core.

    >>> before = {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000}
    >>> now = {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 1400, "online_cpus": 2}
    >>> cpu_percent(before, now), cpu_percent({}, now)
    (50.0, None)
    """
    if "system_cpu_usage" not in before or "system_cpu_usage" not in now:
        return None
    system = now["system_cpu_usage"] - before["system_cpu_usage"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    cores = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ()) or 1
    return round(100.0 * cores * used / system, 1) if system > 0 and used >= 0 else None


def machine_pids(top: Json) -> list[int]:
    """Return the pids of a container's processes as the machine counts (ContainerTop).

    >>> machine_pids({"Titles": ["PID"], "Processes": [["4711"], ["4712"]]})
    [4711, 4712]
    """
    column = top["Titles"].index("PID")
    return [int(row[column]) for row in top["Processes"]]


class ContainerMeter:
    """Holds the last measurement of a container.

    Attributes:
        latest: The last measurement; None when that is not known.
        measured: Set by the next measurement.

    Args:
        api: Of its engine.
        ref: Its id.
        wall: Returns seconds since the epoch.
        gpu_memory: Tells what processes hold on GPUs; None where there are none.
    """

    def __init__(
        self, api: DockerApi, ref: str, wall: Callable[[], float], gpu_memory: GpuMemory | None = None
    ) -> None:
        self.latest: ResourceUsage | None = None
        self.measured = asyncio.Event()
        self._path = f"/containers/{ref}"
        self._api = api
        self._wall = wall
        self._gpu_memory = gpu_memory
        self._gpu_used: int | None = None
        self._gpu_due = 0.0

    async def follow(self) -> None:
        """Take measurements, one a second, until cancelled."""
        path = f"{self._path}/stats"
        while True:
            with contextlib.suppress(RuntimeUnavailableError, RefusedError):
                async with aclosing(self._api.documents("GET", path, SILENCE, stream=1)) as reports:
                    async for report in reports:
                        await self._take(report)
            self.latest = None
            await asyncio.sleep(RETRY)

    async def _take(self, report: Json) -> None:
        stats = parse_stats(report, self._wall())
        if stats is not None and self._gpu_memory is not None and stats.at >= self._gpu_due:
            self._gpu_due = stats.at + GPU_EVERY
            self._gpu_used = await self._look_at_gpus(self._gpu_memory)
        self.latest = stats and replace(stats, gpu_memory=self._gpu_used)
        self.measured.set()
        self.measured = asyncio.Event()

    async def _look_at_gpus(self, gpu_memory: GpuMemory) -> int | None:
        """Return what the container holds on GPUs; the driver may take its time, so a thread asks it."""
        try:
            top = await self._api.get(f"{self._path}/top", ps_args="-o pid")
        except (RuntimeUnavailableError, RefusedError):  # it has ended, or its machine has no ps
            return None
        return await asyncio.to_thread(gpu_memory, machine_pids(top))
