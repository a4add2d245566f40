"""Measures what a container uses, from a stream of the engine's reports."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.service import ResourceUsage
from ai_proxy.runtimes.base import GpuMemory
from ai_proxy.runtimes.docker.answers import ContainerTop, CpuStats, MemoryStats, Stats
from ai_proxy.runtimes.docker.api import DockerApi, RefusedError

RETRY = 2.0
"""Seconds between two tries to listen while the engine is away."""

SILENCE = 30.0
"""Longest wait for the next report, in seconds; the engine sends one per second."""

GPU_EVERY = 5.0
"""Seconds between two looks at the GPUs."""


def parse_stats(report: Stats, at: float) -> ResourceUsage | None:
    """Return the measurement in a report; None when the container does not run.

    Args:
        report: As the engine sends it.
        at: When it came, in seconds since the epoch.
    """
    if report.memory_stats.usage is None:
        return None
    networks = (report.networks or {}).values()
    return ResourceUsage(
        at=at,
        cpu_percent=cpu_percent(report.precpu_stats, report.cpu_stats),
        memory=used_memory(report.memory_stats),
        memory_rss=resident_memory(report.memory_stats),
        memory_limit=report.memory_stats.limit,
        network_received=sum(network.rx_bytes for network in networks),
        network_sent=sum(network.tx_bytes for network in networks),
        pids=report.pids_stats.current,
    )


def used_memory(memory: MemoryStats) -> int:
    """Return the memory in use without the inactive file cache, as `docker stats` shows it.

    The kernel's control groups call that `total_inactive_file` (v1) or `inactive_file` (v2).

    >>> used_memory(MemoryStats(100, stats={"total_inactive_file": 30, "inactive_file": 5}))
    70
    >>> used_memory(MemoryStats(100, stats={"inactive_file": 5}))
    95
    """
    stats = memory.stats or {}
    inactive = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    return max(0, (memory.usage or 0) - inactive)


def resident_memory(memory: MemoryStats) -> int:
    """Return the memory that processes have written: `total_rss` (control groups v1) or `anon` (v2).

    >>> resident_memory(MemoryStats(stats={"total_rss": 7, "rss": 3})), resident_memory(MemoryStats())
    (7, 0)
    """
    stats = memory.stats or {}
    return next((stats[name] for name in ("total_rss", "rss", "anon") if name in stats), 0)


def cpu_percent(before: CpuStats, now: CpuStats) -> float | None:
    """Return the use of the processors between two reports, in percent of one core.

    >>> from ai_proxy.runtimes.docker.answers import CpuUsage
    >>> before, now = CpuStats(CpuUsage(100), 1000), CpuStats(CpuUsage(200), 1400, online_cpus=2)
    >>> cpu_percent(before, now), cpu_percent(CpuStats(), now)
    (50.0, None)
    """
    if before.system_cpu_usage is None or now.system_cpu_usage is None:
        return None
    system = now.system_cpu_usage - before.system_cpu_usage
    used = now.cpu_usage.total_usage - before.cpu_usage.total_usage
    cores = now.online_cpus or len(now.cpu_usage.percpu_usage or ()) or 1
    return round(100 * cores * used / system, 1) if system > 0 and used >= 0 else None


def machine_pids(top: ContainerTop) -> list[int]:
    """Return the pids of a container's processes on the host; empty when the answer has no pids.

    >>> machine_pids(ContainerTop(["PID"], [["4711"], ["4712"]])), machine_pids(ContainerTop([], [["x"]]))
    ([4711, 4712], [])
    """
    column = top.titles.index("PID") if "PID" in top.titles else 0
    cells = (row[column] for row in top.processes or () if len(row) > column)
    return [int(cell) for cell in cells if cell.isdecimal() and len(cell) < 10]


class ContainerMeter:
    """Measures a container.

    Args:
        api: Of its engine.
        ref: Its id.
        report: Takes each measurement.
        wall: Returns seconds since the epoch.
        gpu_memory: Returns what processes hold on GPUs; None where there are none.
    """

    def __init__(
        self,
        api: DockerApi,
        ref: str,
        report: Callable[[ResourceUsage], None],
        wall: Callable[[], float],
        gpu_memory: GpuMemory | None = None,
    ) -> None:
        self._path = f"/containers/{ref}"
        self._api = api
        self._report = report
        self._wall = wall
        self._gpu_memory = gpu_memory
        self._gpu_used: int | None = None
        self._gpu_due = 0.0

    async def follow(self) -> None:
        """Take measurements, one a second, until cancelled."""
        path = f"{self._path}/stats"
        while True:
            # A refusal: the container has ended, which its waiter notices.
            with contextlib.suppress(RuntimeUnavailableError, RefusedError):
                async with aclosing(self._api.documents("GET", path, Stats, SILENCE, stream=1)) as reports:
                    async for report in reports:
                        await self._take(report)
            await asyncio.sleep(RETRY)

    async def _take(self, report: Stats) -> None:
        usage = parse_stats(report, self._wall())
        if usage is None:
            return
        if self._gpu_memory is not None and usage.at >= self._gpu_due:
            self._gpu_due = usage.at + GPU_EVERY
            self._gpu_used = await self._look_at_gpus(self._gpu_memory)
        self._report(replace(usage, gpu_memory=self._gpu_used))

    async def _look_at_gpus(self, gpu_memory: GpuMemory) -> int | None:
        """Return the GPU memory of the container; asks the driver in a thread, since it may be slow."""
        try:
            top = await self._api.get(f"{self._path}/top", ContainerTop, ps_args="-o pid")
        except RuntimeFailureError:  # it has ended, or its machine has no ps
            return None
        return await asyncio.to_thread(gpu_memory, machine_pids(top))
