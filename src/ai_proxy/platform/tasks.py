"""Owned background work: every task has a name, a reference, and an owner that handles its failure.

`spawn` is for work whose result its caller awaits. `Background` owns work that runs as long as the proxy:
it logs a failure at once and restarts the work. The `TaskGroup` of the serve loop (app.py) owns what
cannot be restarted: its failure ends the process, so that the service manager restarts it.
"""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from loguru import logger

from ai_proxy.core.lifecycle import backoff, count_failure

_running: set[asyncio.Task[Any]] = set()


def spawn[T](coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run a coroutine as a task of the current loop; the caller awaits its result, or cancels it.

    The event loop keeps only a weak reference to its tasks, so this module keeps one until the task ends.
    The task's context is empty: its log lines do not belong to the request in which it was started.
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


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often one piece of background work failed and was restarted.

    Attributes:
        count: Since the start of the proxy.
        error: Message of the last failure.
        at: Time of the last failure, in seconds since the epoch.
        waiting: Whether it currently waits for its restart.
    """

    count: int
    error: str
    at: float
    waiting: bool


class Background:
    """Owns work that runs as long as the proxy, and restarts it when it fails.

    Args:
        sleep: Waits that many seconds.
        now: Returns monotonic seconds.
        wall: Returns seconds since the epoch.
        group: Runs the tasks, so that it ends when this owner itself fails; None for tasks on their own.
    """

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        group: asyncio.TaskGroup | None = None,
    ) -> None:
        self._group = group
        self._sleep = sleep
        self._now = now
        self._wall = wall
        self._tasks: set[asyncio.Task[None]] = set()
        self._restarts: dict[str, Restarts] = {}

    def __repr__(self) -> str:
        return f"<Background [{len(self._tasks)} tasks, {len(self._restarts)} restarted]>"

    @property
    def restarts(self) -> Mapping[str, Restarts]:
        """Restarted work by name."""
        return dict(self._restarts)

    def run(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """Run `work` until it returns or its task is cancelled; restart it, with back-off, when it raises.

        Args:
            work: Makes the coroutine to run; called again for every restart.
            name: Name for logs, `/ready` and metrics; one of a small set.
        """
        kept = self._keep(work, name)
        if self._group is None:
            task = spawn(kept, name)
        else:
            task = self._group.create_task(kept, name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel all work, and wait until it has ended."""
        await cancel(*self._tasks)

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        failures = 0
        while True:
            began = self._now()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - any failure leads to a restart
                failures = count_failure(failures, self._now() - began)
                pause = backoff(failures)
                logger.opt(exception=error).error("{} failed; restarting it in {:g} s", name, pause)
                await self._restart_later(name, error, pause)
            else:
                return

    async def _restart_later(self, name: str, error: Exception, pause: float) -> None:
        before = self._restarts.get(name)
        count = before.count + 1 if before is not None else 1
        failed = Restarts(count, f"{type(error).__name__}: {error}", self._wall(), waiting=True)
        self._restarts[name] = failed
        await self._sleep(pause)
        self._restarts[name] = replace(failed, waiting=False)
