"""Random lives of services: whatever happens, the promises of the lifecycle hold."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ai_proxy.control.plane import ControlPlane
from ai_proxy.core.errors import ProxyError
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import State, transition
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import Lease, Outcome, ProcessLaunch, RuntimeKind, Service, StartPolicy
from ai_proxy.telemetry.recorder import NullRecorder
from ai_proxy.testing.clock import FakeClock, settle
from ai_proxy.testing.fake_runtime import Behaviour, FakeProbeEngine, FakeRuntime

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

    @initialize(policy=st.sampled_from(StartPolicy))
    def begin(self, policy: StartPolicy) -> None:
        self.declared["beta"] = declare("beta", policy)

        async def opened() -> ControlPlane:
            plane = ControlPlane(
                self.clock, {RuntimeKind.PROCESS: self.runtime}, {"fake": self.engine}, NullRecorder()
            )
            plane.events.listen(self.events.append)
            await plane.open(self.declared.values())
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

    @rule(available=st.booleans())
    def what_runs_them_goes_away_or_comes_back(self, available: bool) -> None:
        self.runtime.available = available

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

    @rule(name=names, restart=st.booleans())
    def the_configuration_changes(self, name: str, restart: bool) -> None:
        self.version += 1
        changed = replace(self.declared[name], idle_timeout=10.0 + self.version)
        if restart:
            changed = replace(changed, config_hash=f"{name}-{self.version}")
        self.declared[name] = changed
        self.run(self.plane.apply(list(self.declared.values())))
        self.settle()

    @invariant()
    def there_is_one_writer_and_it_keeps_to_the_table(self) -> None:
        states = dict.fromkeys(NAMES, State.UNKNOWN)
        for event in self.events:
            states[event.service_id] = transition(states[event.service_id], event.event)
            assert states[event.service_id] is event.state
        if hasattr(self, "plane"):
            assert states == {view.id: view.state for view in self.plane.services()}

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
            assert view.in_flight == sum(lease.service_id == view.id for lease in self.leases)

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
        self.runtime.available = True
        for name in NAMES:
            self.runtime.behave(name, Behaviour.NORMAL)
            self.engine.set_ready(name, ready=True)
        for _ in range(4):
            self.run(self.clock.advance(30.0))
        self.collect()
        assert not self.requests, "every request was served or refused in the end"

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
