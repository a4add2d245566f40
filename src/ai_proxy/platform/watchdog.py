"""The service manager's watchdog: it restarts a proxy whose event loop is stuck."""

import asyncio
import os
from collections.abc import Mapping

from ai_proxy.platform.process import notify

ALIVE = "WATCHDOG=1"
"""State for `notify`, as in sd_notify(3)."""


def watchdog_interval(env: Mapping[str, str], pid: int) -> float | None:
    """Return the seconds between two notifications: half of the service manager's time limit.

    Args:
        env: May hold `WATCHDOG_USEC` and `WATCHDOG_PID`, as in sd_watchdog_enabled(3).
        pid: Of this process.

    Returns:
        None if the service manager expects no notifications from this process.

    >>> watchdog_interval({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 7)
    30.0
    >>> watchdog_interval({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, 7), watchdog_interval({}, 7)
    (None, None)
    """
    try:
        limit, owner = int(env["WATCHDOG_USEC"]), int(env.get("WATCHDOG_PID", "0"))
    except (KeyError, ValueError):
        return None
    return limit / 2_000_000 if limit > 0 and owner in (0, pid) else None


async def notify_watchdog(env: Mapping[str, str] = os.environ) -> None:
    """Notify the service manager that the event loop runs, until cancelled; return if it does not ask."""
    interval = watchdog_interval(env, os.getpid())
    while interval is not None:
        notify(ALIVE, env)
        await asyncio.sleep(interval)
