"""One running instance of a service: its handle, its upstreams, the leases on it, and its exit."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ai_proxy.control.replicas import Replicas
from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.ports import Clock, Engine, Model, Probe, Runtime
from ai_proxy.core.service import Exit, Handle, Lease, Outcome, ResourceUsage, Service, UpstreamsChanged
from ai_proxy.platform.clock import wait_any
from ai_proxy.platform.tasks import cancel, spawn

STOP_SLACK = 15.0
"""Seconds beyond the grace after which a stop that hangs is asked for again."""
WATCH_RETRY = 1.0
"""Seconds between two tries to watch an instance while its runtime is away."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A service, and what runs it and asks it."""

    service: Service
    runtime: Runtime
    engine: Engine


class Instance:
    """What runs of a service, from its launch or adoption to the proof of its end.

    It gives the leases on its upstreams and takes them back, so a lease is never charged to the instance of
    the same service that follows.

    Args:
        assignment: The service, and what runs it.
        handle: Proof of what runs.
        clock: Returns the time.
        drained: Called whenever the last lease was given back.
    """

    def __init__(
        self, assignment: Assignment, handle: Handle, clock: Clock, drained: Callable[[], None]
    ) -> None:
        self.service = assignment.service
        self.handle = handle
        self.upstreams = handle.upstreams
        self.replicas = Replicas(handle.upstreams, clock)
        self.usage: ResourceUsage | None = None
        self.in_flight = 0
        self.last_used = clock.now()
        self.is_gone = False
        self._runtime = assignment.runtime
        self._engine = assignment.engine
        self._clock = clock
        self._drained = drained
        self.watching = spawn(self._watch(), f"watch {self.service.id}")

    def __repr__(self) -> str:
        return f"<Instance [{self.service.id}, {self.handle.ref}: {self.in_flight} in flight]>"

    @property
    def exit(self) -> Exit | None:
        """How it ended by itself; None while it runs.

        Raises:
            Exception: Whatever the runtime raised when it was asked, beside what its port allows.
        """
        return self.watching.result() if self.watching.done() else None

    async def _watch(self) -> Exit:
        """Take what the runtime reports, until the exit."""
        while True:
            try:
                async with aclosing(self._runtime.watch(self.handle)) as reports:
                    async for report in reports:
                        match report:
                            case Exit():
                                return report
                            case ResourceUsage():
                                self.usage = report
                            case UpstreamsChanged(upstreams):
                                self.upstreams = upstreams
                                self.replicas.change(upstreams)
            except RuntimeFailureError:
                await self._clock.sleep(WATCH_RETRY)
            else:
                raise RuntimeError(f"the runtime ceased to report on {self.handle.ref} without an exit")

    # Leases: implements core.service.LeaseHolder.

    def lease(self) -> Lease:
        """Give a lease on the best upstream."""
        self.in_flight += 1
        return Lease(self.service.id, self.replicas.take(), self)

    def release(self, lease: Lease, outcome: Outcome) -> None:
        """Take a lease back."""
        self.in_flight -= 1
        self.replicas.give_back(lease, outcome)
        if not self.in_flight:
            self.last_used = self._clock.now()
            self._drained()

    def move(self, lease: Lease, outcome: Outcome, retry_after: float) -> bool:
        """Move a lease to another replica; False when there is none to try."""
        return not self.is_gone and self.replicas.move(lease, outcome, retry_after)

    def stands(self, lease: Lease) -> bool:
        """Return whether the upstream of a lease still is one of this instance, which listens there."""
        if self.is_gone or lease.upstream not in self.upstreams:
            return False
        return not self._runtime.listener_fault(self.handle)

    # What its engine says.

    async def probe(self) -> Probe:
        """Ask the engine whether it is ready, which it is when any replica is; no other program is asked."""
        if fault := self._runtime.listener_fault(self.handle):
            return Probe(ready=False, detail=fault)
        upstreams = self.upstreams
        probes = await asyncio.gather(*(self._engine.probe(self.service, upstream) for upstream in upstreams))
        for upstream, probe in zip(upstreams, probes, strict=True):
            self.replicas.check(upstream, healthy=probe.ready)
        if fault := self._runtime.listener_fault(self.handle):
            return Probe(ready=False, detail=fault)  # its program has ended since, and another answered
        return next((probe for probe in probes if probe.ready), probes[0])

    async def models(self) -> tuple[Model, ...]:
        """Return the models that the replicas list, each once."""
        upstreams = self.upstreams
        lists = await asyncio.gather(*(self._engine.models(self.service, upstream) for upstream in upstreams))
        return tuple({model.id: model for listed in lists for model in listed}.values())

    async def let_go(self) -> None:
        """Cease to watch it; what still holds a lease on it goes on."""
        self.is_gone = True
        await cancel(self.watching)
        if not self.watching.cancelled():
            self.watching.exception()  # whatever it was, nobody needs to know any more


async def end(assignment: Assignment, instance: Instance | None, clock: Clock) -> None:
    """End whatever runs of a service, a start whose answer was lost included.

    Raises:
        RuntimeFailureError: There is no proof that nothing runs.
    """
    service, runtime = assignment.service, assignment.runtime

    async def bounded[T](work: Coroutine[Any, Any, T]) -> T:
        """Give up on an answer of the runtime that does not come."""
        task = spawn(work, f"end {service.id}")
        try:
            await wait_any(clock, task, until=clock.now() + service.stop_grace + STOP_SLACK)
            if not task.done():
                raise RuntimeFailureError(f"its runtime did not answer; {service.id} may still be running")
            return task.result()
        finally:
            await cancel(task)

    handles = {handle for handle in await bounded(runtime.handles()) if handle.service_id == service.id}
    if instance is not None:
        handles.add(instance.handle)
    for handle in handles:
        await bounded(runtime.stop(handle, service.stop_grace))
