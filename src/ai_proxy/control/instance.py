"""The running thing behind a service: its launch, its handle, its end."""

import asyncio
import contextlib
from collections.abc import Awaitable
from contextlib import aclosing
from dataclasses import dataclass

from ai_proxy.control.replicas import Replicas
from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.placement import AS_DECLARED, Placement
from ai_proxy.core.ports import Clock, Engine, Model, Probe, Runtime
from ai_proxy.core.service import Exit, Handle, ResourceUsage, Service, Upstream, UpstreamsChanged
from ai_proxy.platform.clock import wait_any
from ai_proxy.platform.tasks import cancel, spawn

STOP_SLACK = 15.0
"""Seconds beyond the grace after which a stop that hangs is asked for again."""
WATCH_RETRY = 1.0
"""Seconds between two tries to watch for the exit while what runs it is away."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a supervisor looks after, and with what."""

    service: Service
    runtime: Runtime
    engine: Engine


class Instance:
    """Carries out what a supervisor decides, and keeps the proof of what runs."""

    def __init__(self, assignment: Assignment, clock: Clock, handle: Handle | None = None) -> None:
        self.service = assignment.service
        self.handle = handle
        self.upstreams: tuple[Upstream, ...] = handle.upstreams if handle else ()
        self.replicas = Replicas(self.upstreams, clock) if handle else None
        self.usage: ResourceUsage | None = None
        self.progress = ""
        self.progressed = 0.0
        self.launching: asyncio.Task[Handle] | None = None
        self.watching: asyncio.Task[Exit] | None = None
        self._runtime = assignment.runtime
        self._engine = assignment.engine
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Instance [{self.service.id}, {self.handle.ref if self.handle else 'nothing runs'}]>"

    @property
    def is_owned(self) -> bool:
        """Whether its runtime starts and ends it; what is not owned runs by itself."""
        return self._runtime.capabilities.owns

    def launch(self, placement: Placement = AS_DECLARED) -> asyncio.Task[Handle]:
        """Begin a start."""
        self.progress = ""
        starting = self._runtime.start(self.service, placement, self._take_progress)
        self.launching = spawn(starting, f"start {self.service.id}")
        return self.launching

    def _take_progress(self, words: str) -> None:
        self.progress = words
        self.progressed = self._clock.now()

    def watch(self, handle: Handle) -> None:
        """Keep the proof of what runs, and wait for its end."""
        self.launching = None
        self.handle = handle
        self._answer_at(handle.upstreams)
        self.watching = spawn(self._watch(handle), f"watch {self.service.id}")

    def _answer_at(self, upstreams: tuple[Upstream, ...]) -> None:
        self.upstreams = upstreams
        self.replicas = Replicas(upstreams, self._clock)

    async def _watch(self, handle: Handle) -> Exit:
        """Take what the runtime reports, until the exit."""
        while True:
            with contextlib.suppress(RuntimeFailureError):
                async with aclosing(self._runtime.watch(handle)) as reports:
                    async for report in reports:
                        match report:
                            case Exit():
                                return report
                            case ResourceUsage():
                                self.usage = report
                            case UpstreamsChanged(upstreams):
                                self._answer_at(upstreams)
            await self._clock.sleep(WATCH_RETRY)

    @property
    def exit(self) -> Exit | None:
        """How it ended by itself; None while it runs."""
        return self.watching.result() if self.watching is not None and self.watching.done() else None

    async def probe(self) -> Probe:
        """Ask the engine whether it is ready: whether any replica is. The others are rested."""
        if self.handle is None or self.replicas is None:
            return Probe(ready=False, detail="nothing runs")
        upstreams = self.upstreams
        probes = await asyncio.gather(*(self._engine.probe(self.service, upstream) for upstream in upstreams))
        for upstream, probe in zip(upstreams, probes, strict=True):
            self.replicas.check(upstream, healthy=probe.ready)
        return next((probe for probe in probes if probe.ready), probes[0])

    async def models(self) -> tuple[Model, ...]:
        """Return the models that the replicas list, each once."""
        if self.handle is None:
            return ()
        upstreams = self.upstreams
        lists = await asyncio.gather(*(self._engine.models(self.service, upstream) for upstream in upstreams))
        return tuple({model.id: model for listed in lists for model in listed}.values())

    def log_tail(self, count: int) -> tuple[str, ...]:
        """Return the last lines of output."""
        return tuple(line.text for line in self._runtime.logs(self.service.id).tail(count))

    async def stop(self) -> None:
        """End whatever runs of the service, a start under way and a lost one included.

        Raises:
            RuntimeFailureError: There is no proof that nothing runs.
        """
        await self._end_launch()
        listed = await self._bounded(self._runtime.handles())
        mine = {handle for handle in listed if handle.service_id == self.service.id}
        for handle in mine | ({self.handle} if self.handle else set()):
            await self._bounded(self._runtime.stop(handle, self.service.stop_grace))
        await cancel(self.watching)
        self.watching = None
        self.forget()

    def forget(self) -> None:
        """Nothing runs any more."""
        self.handle, self.usage, self.upstreams = None, None, ()

    async def detach(self) -> None:
        """Let it run on without us."""
        await self._end_launch()
        await cancel(self.watching)

    async def _end_launch(self) -> None:
        """Give up a start under way; should it fail at this moment, that is of no interest any more."""
        launching, self.launching = self.launching, None
        await cancel(launching)
        if launching is not None and not launching.cancelled():
            launching.exception()

    async def _bounded[T](self, work: Awaitable[T]) -> T:
        """Give up on an answer of the runtime that does not come."""
        task = spawn(_await(work), f"end {self.service.id}")
        try:
            limit = self.service.stop_grace + STOP_SLACK
            await wait_any(self._clock, task, until=self._clock.now() + limit)
            if not task.done():
                raise RuntimeFailureError("no answer from what runs it")
            return task.result()
        finally:
            await cancel(task)


async def _await[T](work: Awaitable[T]) -> T:
    return await work
