"""What a process of many connections asks of the system and of Python."""

import contextlib
import gc
import os
import resource
import sys

OPEN_FILES = 65_536
"""Open files asked of the system: two per request in flight."""
GC_THRESHOLDS = (10_000, 20, 50)
"""Collect less often than the default: the data plane makes garbage, but next to no cycles."""


def raise_file_limit() -> None:
    """Ask for as many open files as many connections need, and let the kernel make room for them now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # The kernel's table of open files doubles as it fills, and everything waits while it is copied.
    with contextlib.suppress(OSError):
        os.close(os.dup2(sys.stderr.fileno(), min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) - 1))


def settle_memory() -> None:
    """Keep what was built so far out of every later garbage collection.

    Nothing is collected before: a start leaves next to no garbage, and looking for it takes 0.1 s.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
