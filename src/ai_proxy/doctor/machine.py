"""Checks of the machine: memory, GPUs, open files, clock."""

import asyncio
import resource
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import psutil

from ai_proxy.config.build import server_settings
from ai_proxy.core.service import DockerLaunch, Service
from ai_proxy.core.settings import MB
from ai_proxy.doctor.finding import Finding, ok, problem, warning
from ai_proxy.doctor.installation import Installation

MEMORY, GPU, FILES, CLOCK = "memory", "GPU", "open files", "clock"
FILES_PER_CONNECTION = 2
"""One for the client's connection and one for the backend's."""
SLACK = 300.0
"""Seconds by which the clock of a file system may differ."""


def classify_memory(total: int, available: int, needs: Mapping[str, int]) -> Sequence[Finding]:
    """Return whether the memory that services declare is available.

    Args:
        total: Bytes of the machine.
        available: Bytes available now.
        needs: Bytes that each service needs.
    """
    shown = f"{available / 1024**3:.1f} of {total / 1024**3:.1f} GB are available"
    if never := [name for name, bytes_needed in needs.items() if bytes_needed > total]:
        fix = "correct resource_requirements.min_memory_mb, or use a smaller model"
        return [problem(MEMORY, f"{', '.join(never)} can never start; {shown}", fix)]
    if now_not := [name for name, bytes_needed in needs.items() if bytes_needed > available]:
        fix = "free memory, or stop other services first"
        return [warning(MEMORY, f"{', '.join(now_not)} cannot start now; {shown}", fix)]
    return [ok(MEMORY, shown)]


def classify_gpu(needed_by: Sequence[str], *, found: bool) -> Finding:
    """Return whether services that need a GPU can get one.

    >>> classify_gpu((), found=False).text
    'no NVIDIA driver, but no service needs a GPU'
    """
    if found:
        return ok(GPU, "the NVIDIA driver works")
    if not needed_by:
        return ok(GPU, "no NVIDIA driver, but no service needs a GPU")
    fix = "install the driver and verify it with nvidia-smi, or set gpus: none"
    return warning(GPU, f"no NVIDIA driver, but needed by: {', '.join(needed_by)}", fix)


def needs_gpu(service: Service) -> bool:
    """Return whether a service requests GPUs or declares GPU memory."""
    gpus = service.launch.gpus if isinstance(service.launch, DockerLaunch) else ()
    return bool(gpus) or service.resources.vram_mb > 0


def classify_open_files(limit: int, connections: int) -> Finding:
    """Return whether the limit of open files allows the configured number of clients.

    Args:
        limit: Hard limit of open files; the proxy raises its soft limit itself.
        connections: Maximum number of clients.
    """
    most = limit // FILES_PER_CONNECTION
    if most >= connections:
        return ok(FILES, f"the limit is {limit}")
    fix = "raise it (LimitNOFILE= for systemd, ulimit -Hn), or lower server.limits.max_connections"
    return warning(FILES, f"the limit is {limit}, enough for {most} of {connections} clients", fix)


def classify_clock(now: float, newest: float) -> Finding:
    """Return whether the clock is plausible, given the last write; both in seconds since the epoch."""
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if newest - now > SLACK:
        text = f"it says {day}, but files are newer: keys and certificates expire at the wrong time"
        return problem(CLOCK, text, "set it: timedatectl set-ntp true")
    return ok(CLOCK, f"it says {day}")


async def check_memory(installation: Installation) -> Sequence[Finding]:
    """Check the memory."""
    memory = psutil.virtual_memory()
    needs = {one.id: one.resources.memory_mb * MB for one in installation.services}
    return classify_memory(memory.total, memory.available, needs)


async def check_gpu(installation: Installation) -> Sequence[Finding]:
    """Check for NVIDIA's driver."""
    from ai_proxy.resources.nvidia import find_nvidia

    found = await asyncio.to_thread(find_nvidia) is not None
    return [classify_gpu([one.id for one in installation.services if needs_gpu(one)], found=found)]


async def check_open_files(installation: Installation) -> Sequence[Finding]:
    """Check the limit of open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 2**31 if hard == resource.RLIM_INFINITY else hard
    return [classify_open_files(limit, server_settings(installation.config).limits.max_connections)]


async def check_clock(installation: Installation) -> Sequence[Finding]:
    """Compare the clock with the last write to the store."""
    files = (installation.data / "ai-proxy.db", installation.data / "ai-proxy.db-wal")
    newest = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
    return [classify_clock(installation.now, newest)]
