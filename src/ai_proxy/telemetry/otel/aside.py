"""Blocking work of others, done aside."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable

from loguru import logger

type Work = Callable[[], object]


async def aside(works: Iterable[Work], timeout: float | None = None) -> None:  # noqa: ASYNC109
    """Do each work in a thread of its own; return when all are done, or after that many seconds.

    The threads are daemons: work that hangs does not keep the program from ending, as it would in a pool. A
    work that fails is logged.
    """
    loop = asyncio.get_running_loop()
    ends = [_begin(work, loop) for work in works]
    if ends:
        await asyncio.wait(ends, timeout=timeout)


def _begin(work: Work, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    end: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - foreign code; nothing depends on its success
            logger.warning("telemetry: {}: {}", type(error).__name__, error)
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(end.set_result, None)

    threading.Thread(target=run, name="telemetry", daemon=True).start()
    return end
