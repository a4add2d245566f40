"""Whether the machine has what is needed: memory, GPUs, open files, the right time."""

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
"""That of the client and that of the backend."""
SLACK = 300.0
"""Seconds that clocks of file systems may differ."""


def judge_memory(total: int, available: int, needs: Mapping[str, int]) -> Sequence[Finding]:
    """Return whether what services declare fits.

    Args:
        total: Bytes of the machine.
        available: Bytes of them that can be had now.
        needs: Bytes by service.
    """
    shown = f"{available / 1024**3:.1f} of {total / 1024**3:.1f} GB are available"
    if never := [name for name, bytes_needed in needs.items() if bytes_needed > total]:
        fix = "correct resource_requirements.min_memory_mb, or use a smaller model"
        return [problem(MEMORY, f"{', '.join(never)} can never start: {shown}", fix)]
    if now_not := [name for name, bytes_needed in needs.items() if bytes_needed > available]:
        fix = "end what takes the memory, or stop other services first"
        return [warning(MEMORY, f"{', '.join(now_not)} cannot start now: {shown}", fix)]
    return [ok(MEMORY, shown)]


def judge_gpu(needed_by: Sequence[str], *, found: bool) -> Finding:
    """Return whether services that ask for a GPU can have one.

    >>> judge_gpu((), found=False).text
    'no NVIDIA driver answers; no service asks for a GPU'
    """
    if found:
        return ok(GPU, "the NVIDIA driver answers")
    if not needed_by:
        return ok(GPU, "no NVIDIA driver answers; no service asks for a GPU")
    fix = "install the driver, and see that nvidia-smi lists the GPU; or set gpus: none"
    return warning(GPU, f"no NVIDIA driver answers, and {', '.join(needed_by)} asks for a GPU", fix)


def asks_for_gpu(service: Service) -> bool:
    """Tell whether a service wants GPUs, or declares memory on one."""
    gpus = service.launch.gpus if isinstance(service.launch, DockerLaunch) else ()
    return bool(gpus) or service.resources.vram_mb > 0


def judge_open_files(limit: int, connections: int) -> Finding:
    """Return whether as many clients as are allowed can be served at once.

    Args:
        limit: How many files a process may have open; the proxy asks for all of them by itself.
        connections: How many clients are allowed.
    """
    most = limit // FILES_PER_CONNECTION
    if most >= connections:
        return ok(FILES, f"a process may have {limit}")
    fix = "raise it (LimitNOFILE= for systemd, ulimit -Hn), or lower server.limits.max_connections"
    return warning(FILES, f"at most {limit}: enough for {most} of {connections} clients at once", fix)


def judge_clock(now: float, newest: float) -> Finding:
    """Return whether the clock can be right, given when something was last written; both since the epoch."""
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if newest - now > SLACK:
        text = f"it says {day}, and something was written after that: keys and certificates expire wrongly"
        return problem(CLOCK, text, "set it right: timedatectl set-ntp true")
    return ok(CLOCK, f"it says {day}")


async def check_memory(installation: Installation) -> Sequence[Finding]:
    """Look at the memory."""
    memory = psutil.virtual_memory()
    needs = {one.id: one.resources.memory_mb * MB for one in installation.services}
    return judge_memory(memory.total, memory.available, needs)


async def check_gpu(installation: Installation) -> Sequence[Finding]:
    """Look for NVIDIA's driver."""
    from ai_proxy.resources.nvidia import find_nvidia

    found = await asyncio.to_thread(find_nvidia) is not None
    return [judge_gpu([one.id for one in installation.services if asks_for_gpu(one)], found=found)]


async def check_open_files(installation: Installation) -> Sequence[Finding]:
    """Look at the limit of open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 2**31 if hard == resource.RLIM_INFINITY else hard
    return [judge_open_files(limit, server_settings(installation.config).limits.max_connections)]


async def check_clock(installation: Installation) -> Sequence[Finding]:
    """Compare the clock with what was written last."""
    files = (installation.data / "ai-proxy.db", installation.data / "ai-proxy.db-wal")
    newest = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
    return [judge_clock(installation.now, newest)]
