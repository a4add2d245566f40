"""Runs an action on a service and shows its progress."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ai_proxy.cli.client import Server, service_path
from ai_proxy.core.terminal import visible
from ai_proxy.platform.tasks import cancel, spawn

INTERVAL = 0.2
"""Seconds between two updates."""


class Display(Protocol):
    """Shows the state of a service."""

    def update(self, view: dict[str, Any]) -> None:
        """Show the state, if it changed."""


class Lines:
    """A display for files and pipes: one line for each change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def update(self, view: dict[str, Any]) -> None:
        """Print a line when the state has changed."""
        line = describe(view)
        if line != self._last:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
            self._last = line


class Bar:
    """A display for terminals: a bar that fills over the duration of the last start, if known."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)
        self._began = progress.get_time()

    def update(self, view: dict[str, Any]) -> None:
        """Redraw the bar."""
        elapsed = self._progress.get_time() - self._began
        self._progress.update(
            self._task, description=describe(view), total=view["load_time"], completed=elapsed
        )


def describe(view: dict[str, Any]) -> str:
    """Return the state of a service as text.

    >>> describe({"id": "llama3", "state": "loading", "reason": "loading model"})
    'llama3 is loading: loading model'
    """
    reason = f": {view['reason']}" if view["reason"] else ""
    return visible(f"{view['id']} is {view['state']}{reason}")


async def act(server: Server, action: str, service_id: str, wait: float) -> dict[str, Any]:
    """Start or stop a service, show its progress on standard error, and return the server's response.

    Args:
        server: The running instance.
        action: `start`, `stop`, `restart` or `unload`.
        service_id: The service.
        wait: Longest wait in seconds; 0 returns at once.

    Raises:
        UserError: The server reports a failure.
    """
    path = service_path(service_id, action)
    if wait == 0:
        return await server.post(path, wait=0)
    answer = spawn(server.post(path, wait=wait), f"{action}-{service_id}")
    console = Console(stderr=True)
    try:
        done, _ = await asyncio.wait({answer}, timeout=INTERVAL)
        if not done:
            with _live(console) as progress:
                await _watch(server, service_id, answer, Bar(progress) if progress else Lines(console))
        return await answer
    finally:
        await cancel(answer)


def _live(console: Console) -> AbstractContextManager[Progress | None]:
    if not console.is_terminal:
        return nullcontext()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


async def _watch(
    server: Server, service_id: str, answer: asyncio.Task[dict[str, Any]], display: Display
) -> None:
    while not answer.done():
        display.update(await server.get(service_path(service_id)))
        await asyncio.wait({answer}, timeout=INTERVAL)
