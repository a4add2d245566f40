"""The real clock, and waiting on a clock that tests can move."""

import asyncio
import time
from typing import Any

from ai_proxy.core.ports import Clock
from ai_proxy.platform.tasks import cancel, spawn


class SystemClock:
    """The real time."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        await asyncio.sleep(seconds)


async def wait_any(clock: Clock, *futures: asyncio.Future[Any], until: float | None = None) -> None:
    """Return when one of the futures is done, or when the time has come.

    Args:
        clock: Returns the time.
        futures: None of them is cancelled.
        until: Monotonic seconds; None to wait for the futures alone.
    """
    timer = None if until is None else spawn(clock.sleep(until - clock.now()), "timer")
    try:
        await asyncio.wait([*futures, timer] if timer else list(futures), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(timer)
