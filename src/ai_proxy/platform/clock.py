"""The system's clock, and waiting on a clock that tests can move."""

import asyncio
import time
from typing import Any

from ai_proxy.core.ports import Clock
from ai_proxy.platform.tasks import cancel, spawn


class SystemClock:
    """The system's clock; implements `core.ports.Clock`."""

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
    """Return when one of the futures is done, or at a time.

    Args:
        clock: The clock that measures `until`.
        futures: The futures; this cancels none of them.
        until: Latest time to return, in monotonic seconds; None for no such time.
    """
    timer = None if until is None else spawn(clock.sleep(until - clock.now()), "timer")
    try:
        await asyncio.wait([*futures, timer] if timer else list(futures), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(timer)


async def wait_event(
    clock: Clock, event: asyncio.Event, *futures: asyncio.Future[Any], until: float | None = None
) -> None:
    """Return when the event is set or one of the futures is done, or when the time has come."""
    is_set = spawn(event.wait(), "event")
    try:
        await wait_any(clock, is_set, *futures, until=until)
    finally:
        await cancel(is_set)
