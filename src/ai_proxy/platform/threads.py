"""Blocking work in threads of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial


async def in_thread[T](work: Callable[[], T], name: str) -> T:
    """Return the result of blocking work that may hang, done in a daemon thread.

    A pool's thread, as `asyncio.to_thread` uses, would keep the program from ending until the work is done.

    Args:
        work: What it raises is raised here. It goes on when the caller is cancelled.
        name: Of the thread.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(act: Callable[[], None]) -> None:
        if not result.done():  # it is when its caller was cancelled
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
