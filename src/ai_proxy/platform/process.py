"""Processes and the system: when one began, the service manager of this one, its open files, its memory."""

import contextlib
import gc
import os
import resource
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
from loguru import logger

READY, STOPPING = "READY=1", "STOPPING=1"
"""States for `notify`, as in sd_notify(3)."""

OPEN_FILES = 65_536
"""Open files requested from the system: a request in flight takes two."""
GC_THRESHOLDS = (10_000, 20, 50)
"""Collect less often than by default: the data plane creates garbage, but almost no cycles."""


def boot_id() -> str:
    """Return the name of this boot of the system (random(4)); empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def began(pid: int) -> float | None:
    """Return when a process began, in seconds; None when there is no such process.

    On Linux since the boot (proc_pid_stat(5), field 22), so that a step of the system's clock does not change
    it; elsewhere since the epoch.
    """
    if sys.platform != "linux":
        try:
            return psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()  # begins with field 3; the name itself may hold anything
    return int(after_name[19]) / os.sysconf("SC_CLK_TCK")


def birth(pid: int) -> str | None:
    """Return an id that no other process with the same pid ever had; None when there is no process."""
    moment = began(pid)
    return None if moment is None else f"{boot_id()}:{moment}"


def notify(state: str, env: Mapping[str, str] = os.environ) -> None:
    """Report a state to the service manager, if one listens; log a failure and go on.

    Args:
        state: An assignment, as in sd_notify(3).
        env: May hold the manager's socket: `NOTIFY_SOCKET`.
    """
    address = env.get("NOTIFY_SOCKET")
    if not address:
        return
    # An address that is not a path begins with a zero byte, written as "@" (unix(7)).
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode(), name)
    except OSError as error:
        logger.warning("cannot send {} to the service manager: {}", state, error)


def raise_file_limit() -> None:
    """Raise the limit of open files, and let the kernel grow its table for them now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # The kernel doubles its table of open files when it is full, and everything waits while it copies it.
    with contextlib.suppress(OSError):
        os.close(os.dup2(sys.stderr.fileno(), min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) - 1))


def settle_memory() -> None:
    """Exclude everything built so far from later garbage collections.

    It does not collect first: a start leaves almost no garbage, and searching for it takes 0.1 s.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
