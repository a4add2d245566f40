"""Random lives of services: whatever happens, the promises of the lifecycle hold."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from loguru import logger
from tests.rigs.recorder import NullRecorder

from ai_proxy.control.plane import ControlPlane
from ai_proxy.control.views import ReloadReport
from ai_proxy.core.errors import ProxyError
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State, transition
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import Lease, Outcome, ProcessLaunch, RuntimeKind, Service, StartPolicy
from ai_proxy.platform.tasks import spawn
from ai_proxy.testing.fakes import Behaviour, FakeClock, FakeProbeEngine, FakeRuntime, settle

NAMES = ("alpha", "beta")
names = st.sampled_from(NAMES)


def declare(name: str, start: StartPolicy = StartPolicy.ON_DEMAND) -> Service:
    return Service(
        id=name,
        type="generic",
        engine="fake",
        launch=ProcessLaunch(("serve", name)),
        config_hash=f"{name}-1",
        start=start,
        idle_timeout=15.0,
        start_timeout=20.0,
        stop_grace=3.0,
        drain_timeout=6.0,
        max_waiting=5,
    )


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """Keep quiet about thousands of misfortunes."""
    logger.disable("ai_proxy")
    yield
    logger.enable("ai_proxy")


class Lives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.runtime = FakeRuntime(self.clock, delay=4.0)
        self.engine = FakeProbeEngine("fake")
        self.requests: list[tuple[str, asyncio.Task[Lease]]] = []
        self.leases: list[Lease] = []
        self.events: list[ServiceEvent] = []
        self.declared = {name: declare(name) for name in NAMES}
        self.version = 1
        self.reload: asyncio.Task[ReloadReport] | None = None
        self.listener_breaks = False

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def settle(self) -> None:
        self.run(settle())
        self.collect()

    def collect(self) -> None:
        """Take the leases of the requests that were served."""
        for request in [r for r in self.requests if r[1].done()]:
            self.requests.remove(request)
            task = request[1]
            if not task.cancelled() and task.exception() is None:
                self.leases.append(task.result())

    def listen(self, event: ServiceEvent) -> None:
        if self.listener_breaks:
            raise KeyError(event.service_id)

    @initialize(
        policy=st.sampled_from(StartPolicy),
        available=st.booleans(),
        delay=st.sampled_from([0.0, 2.0]),
        left=st.sampled_from([{}, {"config_hash": "alpha-1"}, {"config_hash": "alpha-0"}, {"version": 99}]),
    )
    def begin(self, policy: StartPolicy, available: bool, delay: float, left: dict[str, Any]) -> None:
        self.declared["beta"] = declare("beta", policy)

        async def left_by_a_former_proxy() -> None:
            for service in (declare("alpha"), declare("gone")):
                running = self.runtime.machine.run(service, self.clock.wall())
                running.handle = replace(running.handle, **left)

        if left:
            self.run(left_by_a_former_proxy())
        self.runtime.available = available
        self.runtime.listing_delay = delay

        async def opened() -> ControlPlane:
            plane = ControlPlane(
                self.clock, {RuntimeKind.PROCESS: self.runtime}, {"fake": self.engine}, NullRecorder()
            )
            plane.events.listen(self.listen)
            plane.events.listen(self.events.append)
            opening = spawn(plane.open(self.declared.values()), "open")
            await self.clock.advance(3.0)
            await opening
            return plane

        self.plane = self.run(opened())
        self.settle()

    @rule(name=names, count=st.integers(1, 4))
    def requests_come(self, name: str, count: int) -> None:
        for _ in range(count):
            self.requests.append((name, self.loop.create_task(self.plane.scheduler.admit(Ask(name)))))
        self.settle()

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def a_client_gives_up(self, data: st.DataObject) -> None:
        _, task = data.draw(st.sampled_from(self.requests))
        task.cancel()
        self.settle()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def a_request_ends(self, data: st.DataObject, outcome: Outcome) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.leases.remove(lease)
        self.plane.scheduler.release(lease, outcome)
        self.settle()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 16.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))
        self.collect()

    @rule(name=names, behaviour=st.sampled_from(Behaviour))
    def the_runtime_behaves_differently(self, name: str, behaviour: Behaviour) -> None:
        self.runtime.behave(name, behaviour)

    @rule(name=names, ready=st.booleans())
    def the_engine_behaves_differently(self, name: str, ready: bool) -> None:
        self.engine.set_ready(name, ready=ready)

    @rule(available=st.booleans(), breaks=st.booleans())
    def what_runs_them_goes_away_or_comes_back(self, available: bool, breaks: bool) -> None:
        self.runtime.available = available
        self.runtime.breaks = breaks

    @rule(name=names, breaks=st.booleans())
    def the_engine_raises_what_its_port_does_not_allow(self, name: str, breaks: bool) -> None:
        (self.engine.breaks.add if breaks else self.engine.breaks.discard)(name)

    @rule(breaks=st.booleans())
    def a_listener_raises(self, breaks: bool) -> None:
        self.listener_breaks = breaks

    @rule(name=names)
    def the_backend_crashes(self, name: str) -> None:
        self.runtime.crash(name, code=1, lines=["segmentation fault"])
        self.settle()

    @rule(name=names, order=st.sampled_from(["start", "stop", "restart", "unload"]))
    def somebody_orders(self, name: str, order: str) -> None:
        async def give() -> None:
            with contextlib.suppress(ProxyError):
                await getattr(self.plane, order)(name)

        self.run(give())
        self.settle()

    @precondition(lambda self: len(self.declared) == len(NAMES))
    @rule(name=names, restart=st.booleans())
    def the_configuration_changes(self, name: str, restart: bool) -> None:
        self.version += 1
        changed = replace(self.declared[name], idle_timeout=10.0 + self.version)
        if restart:
            changed = replace(changed, config_hash=f"{name}-{self.version}")
        self.declared[name] = changed
        self.apply()

    @rule(name=names)
    def a_service_is_removed_or_declared_again(self, name: str) -> None:
        if name in self.declared:
            del self.declared[name]
        else:
            self.declared[name] = declare(name)
        self.apply()

    def apply(self) -> None:
        """Reload, as soon as an earlier reload has ended; the end of this one is not waited for."""
        while self.reload is not None and not self.reload.done():
            self.run(self.clock.advance(1.0))

        async def begin() -> None:
            self.reload = spawn(self.plane.apply(list(self.declared.values())), "reload")

        self.run(begin())
        self.settle()

    @invariant()
    def there_is_one_writer_and_it_keeps_to_the_table(self) -> None:
        states = dict.fromkeys(NAMES, State.UNKNOWN)
        for event in self.events:
            outdated = event.event is Event.STOP and event.reason == "found running, not as declared"
            if outdated or event.event in (Event.ABSENT, Event.ADOPTED):
                states[event.service_id] = State.UNKNOWN  # also after the end of a removed one
            states[event.service_id] = transition(states[event.service_id], event.event)
            assert states[event.service_id] is event.state
        for view in self.plane.services() if hasattr(self, "plane") else ():
            assert view.state in (states[view.id], State.UNKNOWN)

    @invariant()
    def nothing_is_started_twice(self) -> None:
        assert all(self.runtime.machine.most[name] <= 1 for name in NAMES)

    @invariant()
    def rest_means_that_nothing_runs(self) -> None:
        for view in self.plane.services() if hasattr(self, "plane") else ():
            if view.state in (State.STOPPED, State.FAILED):
                assert not self.runtime.machine.running(view.id)

    @invariant()
    def no_lease_leaks(self) -> None:
        for view in self.plane.services() if hasattr(self, "plane") else ():
            stand = [one for one in self.leases if self.plane.scheduler.stands(one)]
            assert view.in_flight == sum(lease.service_id == view.id for lease in stand)

    @invariant()
    def no_waiter_is_lost(self) -> None:
        for view in self.plane.services() if hasattr(self, "plane") else ():
            assert view.waiting == sum(name == view.id for name, _ in self.requests)

    @invariant()
    def nobody_waits_for_a_service_that_is_ready(self) -> None:
        for view in self.plane.services() if hasattr(self, "plane") else ():
            if view.state is State.READY:
                assert view.waiting == 0

    def teardown(self) -> None:
        if not hasattr(self, "plane"):
            self.loop.close()
            return
        self.runtime.available, self.runtime.breaks, self.listener_breaks = True, False, False
        self.engine.breaks.clear()
        for name in NAMES:
            self.runtime.behave(name, Behaviour.NORMAL)
            self.engine.set_ready(name, ready=True)
        for _ in range(4):
            self.run(self.clock.advance(30.0))
        self.collect()
        assert not self.requests, "every request was served or refused in the end"

        for name in self.declared:
            self.run(self.plane.start(name))
        self.run(self.clock.advance(10.0))
        for view in self.plane.services():
            assert view.state is State.READY, "no misfortune freezes a service"

        closing = self.loop.create_task(self.plane.close())
        self.run(self.clock.advance(60.0))
        assert closing.done()
        closing.result()
        assert not self.runtime.machine.running()
        self.loop.close()


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
