"""A clock, a runtime and an engine that do as they are told, in memory, so that tests can rehearse any fault.

Time is a clock's that the test holds; nothing sleeps for real. The `Machine` knows what really runs, whatever
the runtime says: two runtimes on one machine are a proxy before and after its restart.
"""

import asyncio
import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ai_proxy.core.abilities import Abilities
from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.logring import LogRing
from ai_proxy.core.placement import Placement
from ai_proxy.core.ports import Clock, Model, Probe, RuntimeCapabilities, Tell
from ai_proxy.core.service import Exit, Handle, Report, Service, Upstream
from ai_proxy.platform.clock import wait_event

__all__ = ["Behaviour", "FakeClock", "FakeProbeEngine", "FakeRuntime", "Machine", "settle"]


class FakeClock:
    """Time stands still until `advance` is called."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Return seconds since the epoch, which began long before the monotonic clock."""
        return 1_700_000_000.0 + self._now

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been advanced that far."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + max(0.0, seconds), next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time on, waking each sleeper at its moment and letting the woken work settle."""
        end = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, when)
            if not future.done():
                future.set_result(None)
            await settle()
        self._now = end
        await settle()

    async def leap(self, seconds: float) -> None:
        """Move time on at once, as for a program that was stopped meanwhile: everything wakes late."""
        self._now += seconds
        await self.advance(0)


async def settle(rounds: int = 50) -> None:
    """Let every task that can run do so."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class Behaviour(StrEnum):
    """How a service behaves when it is started or stopped."""

    NORMAL = "normal"
    SLOW_START = "slow_start"
    """`start` takes `delay` seconds; cancelled before, nothing runs."""
    PULLS = "pulls"
    """`start` takes `delay` seconds, and tells its progress every second."""
    NEVER_ANSWERS = "never_answers"
    """`start` never returns, and nothing runs."""
    LOST_ANSWER = "lost_answer"
    """`start` never returns, but the thing runs."""
    START_FAILS = "start_fails"
    """`start` raises, and nothing runs."""
    EXITS_AT_ONCE = "exits_at_once"
    """It ends by itself with code 3 as soon as it runs."""
    IGNORES_STOP = "ignores_stop"
    """It ends only when the grace is over."""
    STOP_FAILS = "stop_fails"
    """`stop` raises, and it runs on."""
    START_BREAKS = "start_breaks"
    """`start` raises what its port does not allow, and nothing runs."""
    WATCH_BREAKS = "watch_breaks"
    """`watch` raises what its port does not allow, while it runs."""
    WATCH_ENDS = "watch_ends"
    """`watch` ends without an exit, while it runs."""
    STOP_BREAKS = "stop_breaks"
    """`stop` raises what its port does not allow, and it runs on."""


@dataclass(eq=False, slots=True)
class Running:
    """Something that runs on a machine, or ran."""

    handle: Handle
    exit: asyncio.Future[Exit]
    reports: list[Report] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Machine:
    """What really runs, and what has ever been started.

    Attributes:
        instances: In the order in which they were started.
        most: By service: the most of its instances that ever ran at once.
        logs: By service: its output.
    """

    instances: list[Running] = field(default_factory=list)
    most: Counter[str] = field(default_factory=Counter)
    logs: defaultdict[str, LogRing] = field(default_factory=lambda: defaultdict(LogRing))

    def run(self, service: Service, at: float) -> Running:
        """Make an instance of a service run."""
        number = len(self.instances) + 1
        upstream = Upstream("127.0.0.1", 20000 + number)
        handle = Handle(service.id, service.config_hash, f"fake-{number}", at, (upstream,))
        instance = Running(handle, asyncio.get_running_loop().create_future())
        self.instances.append(instance)
        self.most[service.id] = max(self.most[service.id], len(self.running(service.id)))
        return instance

    def running(self, service_id: str | None = None) -> list[Running]:
        """Return what runs: of one service, or of all."""
        return [
            instance
            for instance in self.instances
            if not instance.exit.done() and service_id in (None, instance.handle.service_id)
        ]

    def end(self, service_id: str, code: int, detail: str) -> None:
        """End every running instance of a service."""
        for instance in self.running(service_id):
            instance.exit.set_result(Exit(code, detail))


class FakeRuntime:
    """Implements `core.ports.Runtime` in memory.

    Attributes:
        machine: What really runs.
        available: Set to False to make every call raise, as when the Docker daemon is away.
        breaks: Set to True to make every listing raise what its port does not allow.
        listing_delay: Seconds that a listing takes.
        delay: Seconds that a SLOW_START takes.
        calls: What was asked of it, as `(verb, service id)`.
        placements: Where each start was to run, in order.
        capabilities: What it says that it can do.
        strangers: Who listens in place of a service, by its id.
    """

    def __init__(self, clock: Clock, machine: Machine | None = None, delay: float = 30.0) -> None:
        self.capabilities = RuntimeCapabilities()
        self.strangers: dict[str, str] = {}
        self.placements: list[Placement] = []
        self.machine = machine or Machine()
        self.available = True
        self.breaks = False
        self.listing_delay = 0.0
        self.delay = delay
        self.calls: list[tuple[str, str]] = []
        self._clock = clock
        self._behaviour: dict[str, Behaviour] = {}

    def __repr__(self) -> str:
        return f"<FakeRuntime [{len(self.machine.running())} running]>"

    def behave(self, service_id: str, behaviour: Behaviour) -> None:
        """Make a service behave so from its next start or stop on."""
        self._behaviour[service_id] = behaviour

    def crash(self, service_id: str, code: int = 1, lines: Sequence[str] = ()) -> None:
        """Make what runs of a service say its last lines and end."""
        for line in lines:
            self.logs(service_id).append(line, self._clock.wall())
        self.machine.end(service_id, code, f"exit code {code}")

    def report(self, service_id: str, report: Report) -> None:
        """Report something of what runs of a service."""
        for instance in self.machine.running(service_id):
            instance.reports.append(report)
            instance.news.set()
            instance.news = asyncio.Event()

    async def start(self, service: Service, placement: Placement, tell: Tell) -> Handle:
        """Launch as the service's behaviour says."""
        self._note("start", service.id)
        self.placements.append(placement)
        tell(f"launching {service.id}")
        behaviour = self._of(service.id)
        match behaviour:
            case Behaviour.START_FAILS:
                raise RuntimeFailureError(f"{service.id} could not be started: it was told to fail")
            case Behaviour.START_BREAKS:
                raise KeyError("Id")
            case Behaviour.NEVER_ANSWERS:
                await self._never()
            case Behaviour.PULLS:
                for second in range(int(self.delay)):
                    tell(f"pulling image: {second} of {self.delay:g} layers")
                    await self._clock.sleep(1.0)
            case Behaviour.SLOW_START:
                await self._clock.sleep(self.delay)
        instance = self.machine.run(service, self._clock.wall())
        if behaviour is Behaviour.LOST_ANSWER:
            await self._never()
        if behaviour is Behaviour.EXITS_AT_ONCE:
            self.crash(service.id, code=3, lines=["cannot go on"])
        return instance.handle

    async def stop(self, handle: Handle, grace: float) -> None:
        """End it as its behaviour says."""
        self._note("stop", handle.service_id)
        instance = self._instance(handle)
        if instance is None or instance.exit.done():
            return
        behaviour = self._of(handle.service_id)
        if behaviour is Behaviour.STOP_FAILS:
            raise RuntimeFailureError(f"{handle.service_id} could not be ended: it was told to stay")
        if behaviour is Behaviour.STOP_BREAKS:
            raise KeyError("Id")
        if behaviour is Behaviour.IGNORES_STOP:
            await self._clock.sleep(grace)
        if not instance.exit.done():
            forced = behaviour is Behaviour.IGNORES_STOP
            instance.exit.set_result(
                Exit(-9, "killed by SIGKILL") if forced else Exit(-15, "killed by SIGTERM")
            )

    async def watch(self, handle: Handle) -> AsyncGenerator[Report, None]:
        """Report what a test reports of it, and its exit."""
        instance = self._instance(handle)
        behaviour = self._of(handle.service_id)
        if behaviour is Behaviour.WATCH_BREAKS:
            raise KeyError("StatusCode")
        if behaviour is Behaviour.WATCH_ENDS:
            return
        if instance is None:
            yield Exit(None, "had ended before")
            return
        seen = 0
        while not instance.exit.done():
            for report in instance.reports[seen:]:
                seen += 1
                yield report
            await wait_event(self._clock, instance.news, instance.exit)
        yield instance.exit.result()

    async def handles(self) -> Sequence[Handle]:
        """Return what runs."""
        self._note("handles", "")
        if self.breaks:
            raise KeyError("Labels")
        if self.listing_delay:
            await self._clock.sleep(self.listing_delay)
        return [instance.handle for instance in self.machine.running()]

    def logs(self, service_id: str) -> LogRing:
        """Return the ring of a service."""
        return self.machine.logs[service_id]

    def listener_fault(self, handle: Handle) -> str:
        """Return what the test says about the service's address."""
        return self.strangers.get(handle.service_id, "")

    def _note(self, verb: str, service_id: str) -> None:
        self.calls.append((verb, service_id))
        if not self.available:
            raise RuntimeUnavailableError("the machine is away: it was told to be")

    def _of(self, service_id: str) -> Behaviour:
        return self._behaviour.get(service_id, Behaviour.NORMAL)

    def _instance(self, handle: Handle) -> Running | None:
        return next((i for i in self.machine.instances if i.handle == handle), None)

    async def _never(self) -> None:
        await asyncio.get_running_loop().create_future()


class FakeProbeEngine:
    """Implements `core.ports.Engine`: ready when it is told to be.

    Attributes:
        probes: How often each service was asked for its readiness.
        listed: The models that each service lists.
        breaks: Services whose probes raise what the port does not allow.
        hangs: Services whose probes never answer.
    """

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.abilities = Abilities(name)
        self.probes: Counter[str] = Counter()
        self.listed: dict[str, tuple[Model, ...]] = {}
        self.breaks: set[str] = set()
        self.hangs: set[str] = set()
        self._ready_at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<FakeProbeEngine {self.name}>"

    def ready_after(self, service_id: str, probes: float) -> None:
        """Make a service ready once it will have been asked that often from now; infinity for never."""
        self._ready_at[service_id] = self.probes[service_id] + probes

    def set_ready(self, service_id: str, *, ready: bool) -> None:
        """Make a service ready from now on, or not."""
        self.ready_after(service_id, 0.0 if ready else float("inf"))

    async def probe(self, service: Service, upstream: Upstream) -> Probe:  # noqa: ARG002
        """Count, and answer as told; ready unless told otherwise."""
        self.probes[service.id] += 1
        if service.id in self.breaks:
            raise KeyError("data")
        if service.id in self.hangs:
            await asyncio.get_running_loop().create_future()
        ready = self.probes[service.id] >= self._ready_at.get(service.id, 0.0)
        return Probe(ready, "ready" if ready else "loading model")

    async def models(self, service: Service, upstream: Upstream) -> Sequence[Model]:  # noqa: ARG002
        """Return what the service lists."""
        return self.listed.get(service.id, ())
