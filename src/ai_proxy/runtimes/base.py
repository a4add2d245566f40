"""What runtimes have in common; a new runtime adds one descriptor."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import Exit, Report
from ai_proxy.core.settings import DockerSettings
from ai_proxy.platform.tasks import Background

type GpuMemory = Callable[[Collection[int]], int | None]
"""Returns the bytes that processes of the machine, by pid, hold on GPUs; None when unknown."""


@dataclass(frozen=True, slots=True)
class RuntimeContext:
    """What a runtime is opened with.

    Attributes:
        folder: Of this proxy instance, for the owner only; a runtime keeps its files in a folder in it.
        owner: Distinguishes what this proxy runs from what other proxies run.
        version: Of the proxy.
        docker: The section `docker` of the configuration.
        background: Owns the work that goes on while the runtime is open.
        gpu_memory: Returns what processes hold on GPUs; None where there are none.
    """

    folder: Path
    owner: str
    version: str
    docker: DockerSettings
    background: Background
    gpu_memory: GpuMemory | None = None


@dataclass(frozen=True, slots=True)
class RuntimeDescriptor:
    """A runtime that services may name.

    Attributes:
        name: As services declare it: `docker`.
        open: Opens the runtime, without any call to the outside world before its first use. Closing it
            leaves what runs running.
    """

    name: str
    open: Callable[[RuntimeContext], AbstractAsyncContextManager[Runtime]]


class Reports:
    """The reports of one running thing, for several watchers.

    Attributes:
        exit: How it ended; None while it runs.
    """

    def __init__(self, exit: Exit | None = None) -> None:  # noqa: A002 - the domain's word
        self.exit = exit
        self._latest: Report | None = exit
        self._news = asyncio.Event()

    def publish(self, report: Report) -> None:
        """Pass a report to every watcher; a slow one gets only the latest. Nothing follows an exit."""
        if self.exit is not None:
            return
        self._latest = report
        if isinstance(report, Exit):
            self.exit = report
        self._news.set()
        self._news = asyncio.Event()

    async def follow(self) -> AsyncGenerator[Report]:
        """Yield the latest report and all that follow, until the exit."""
        seen: Report | None = None
        while self.exit is None:
            if self._latest is None or self._latest is seen:
                await self._news.wait()
            elif (seen := self._latest) is not None:
                yield seen
        yield self.exit
