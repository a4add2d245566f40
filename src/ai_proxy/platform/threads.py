"""Blocking work in dedicated threads."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial


async def in_thread[T](work: Callable[[], T], name: str) -> T:
    """Run blocking work that may hang in a daemon thread, and return its result.

    A pool's thread, as `asyncio.to_thread` uses, would keep the process from exiting until the work is done.

    Args:
        work: The work; this raises what it raises, and cancelling this does not end it.
        name: Name of the thread.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(act: Callable[[], None]) -> None:
        if not result.done():  # it is done when the caller was cancelled
            act()

    def run() -> None:
        act: Callable[[], None]
        try:
            act = partial(result.set_result, work())
        except Exception as error:  # noqa: BLE001 - raised where the work is awaited
            act = partial(result.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, act)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await result
