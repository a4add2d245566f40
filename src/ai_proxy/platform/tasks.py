"""The one way to start a background task: named, and referenced until it ends."""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

_running: set[asyncio.Task[Any]] = set()


def spawn[T](coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run a coroutine as a task of the current loop.

    The event loop keeps only a weak reference to its tasks, so one is kept here until the task ends. A task
    that dies of an error nobody takes is told to the loop's exception handler, by asyncio itself. Its context
    is empty: what it logs does not belong to the request in which it happened to be started.
    """
    task = asyncio.get_running_loop().create_task(coroutine, name=name, context=contextvars.Context())
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def cancel(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they have ended, whatever their outcome."""
    alive = [task for task in tasks if task is not None and not task.done()]
    for task in alive:
        task.cancel()
    if alive:
        await asyncio.wait(alive)
