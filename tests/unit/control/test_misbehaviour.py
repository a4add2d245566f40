"""Runtimes, engines and listeners that raise what their ports do not allow, and services that come and go."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from loguru import logger
from tests.rigs.recorder import NullRecorder
from tests.unit.control.conftest import Stage, build, close, declare

from ai_proxy.control.events import EventBus
from ai_proxy.control.instance import Assignment
from ai_proxy.control.plane import ControlPlane
from ai_proxy.control.supervisor import Supervisor
from ai_proxy.core.errors import (
    RuntimeUnavailableError,
    ServiceFailedError,
    StartTimeoutError,
)
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import State
from ai_proxy.core.placement import AS_DECLARED
from ai_proxy.core.scheduling import Ask, Decision, Start
from ai_proxy.core.service import (
    ExternalLaunch,
    Lease,
    Outcome,
    ResourceUsage,
    RuntimeKind,
    StartPolicy,
    Upstream,
    UpstreamsChanged,
)
from ai_proxy.platform.tasks import Background, spawn
from ai_proxy.runtimes.external import ExternalRuntime
from ai_proxy.testing.fakes import Behaviour, FakeClock, FakeProbeEngine, FakeRuntime, Machine, settle


@pytest.fixture
async def logged() -> AsyncIterator[list[str]]:
    """Take what is logged, with its traceback."""
    lines: list[str] = []
    sink = logger.add(
        lambda message: lines.append(str(message)), level="ERROR", format="{message}\n{exception}"
    )
    yield lines
    logger.remove(sink)


def ask(stage: Stage, name: str = "svc") -> "asyncio.Task[Lease]":
    return spawn(stage.plane.scheduler.admit(Ask(name)), f"request for {name}")


async def served(stage: Stage, name: str = "svc") -> Lease:
    request = ask(stage, name)
    await stage.clock.advance(2)
    return await request


async def started_by_hand(stage: Stage, name: str = "svc") -> State:
    starting = spawn(stage.plane.start(name, wait=10), "start")
    await stage.clock.advance(11)
    return (await starting).state


# What raises anything unexpected does not freeze its service.


@pytest.mark.parametrize("behaviour", [Behaviour.START_BREAKS, Behaviour.WATCH_BREAKS, Behaviour.WATCH_ENDS])
async def test_a_runtime_that_raises_the_unexpected_fails_its_service_with_the_reason(
    stage: Stage, behaviour: Behaviour, logged: list[str]
) -> None:
    await stage.plane.open([declare()])
    stage.engine.set_ready("svc", ready=False)
    stage.runtime.behave("svc", behaviour)

    request = ask(stage)
    await stage.clock.advance(2)
    view = stage.plane.service("svc")
    stage.runtime.behave("svc", Behaviour.NORMAL)
    stage.engine.set_ready("svc", ready=True)

    with pytest.raises(ServiceFailedError, match="unexpected"):
        await request
    assert view.state is State.FAILED
    assert any("Traceback" in line for line in logged)
    assert await started_by_hand(stage) is State.READY


async def test_an_engine_that_raises_the_unexpected_fails_its_service_with_the_reason(
    stage: Stage, logged: list[str]
) -> None:
    await stage.plane.open([declare()])
    stage.engine.breaks.add("svc")

    request = ask(stage)
    await stage.clock.advance(2)
    stage.engine.breaks.clear()

    with pytest.raises(ServiceFailedError, match="svc failed: unexpected KeyError: 'data'"):
        await request
    assert any("Traceback" in line for line in logged)
    assert not stage.runtime.machine.running()
    assert await started_by_hand(stage) is State.READY


async def test_a_probe_that_never_answers_is_given_up_within_the_limit_of_the_start(stage: Stage) -> None:
    stage.engine.hangs.add("svc")
    await stage.plane.open([replace(declare(), start_timeout=2.0)])

    request = ask(stage)
    await stage.clock.advance(2.5)

    assert request.done()
    with pytest.raises(ServiceFailedError, match="not ready within 2 s of its start: no answer"):
        await request


async def test_a_long_pull_takes_nothing_from_the_time_to_load(stage: Stage) -> None:
    stage.runtime.behave("svc", Behaviour.PULLS)
    stage.engine.ready_after("svc", 6)
    await stage.plane.open([replace(declare(), start_timeout=4.0)])

    starting = spawn(stage.plane.start("svc", wait=60), "start")
    await stage.clock.advance(50)

    assert (await starting).state is State.READY


async def test_what_is_adopted_late_has_all_its_time_to_get_ready() -> None:
    machine, clock = Machine(), FakeClock()
    machine.run(declare(), clock.wall())
    stage = build(clock, machine)
    stage.runtime.available = False
    await stage.plane.open([declare()])
    await clock.advance(100)
    stage.engine.ready_after("svc", 10)

    stage.runtime.available = True
    await clock.advance(20)

    assert stage.plane.service("svc").state is State.READY
    await close(stage)


async def test_a_stop_that_raises_the_unexpected_is_tried_until_there_is_proof(
    stage: Stage, logged: list[str]
) -> None:
    await stage.plane.open([declare()])
    await served(stage)
    stage.runtime.behave("svc", Behaviour.STOP_BREAKS)

    await stage.plane.stop("svc")
    await stage.clock.advance(10)
    during = stage.plane.service("svc")
    stage.runtime.behave("svc", Behaviour.NORMAL)
    await stage.clock.advance(61)

    assert during.state is State.STOPPING
    assert during.reason == "could not be stopped yet: unexpected KeyError: 'Id'"
    assert any("Traceback" in line for line in logged)
    assert stage.plane.service("svc").state is State.STOPPED


async def test_a_listener_that_raises_harms_no_service(stage: Stage, logged: list[str]) -> None:
    def listen(event: ServiceEvent) -> None:
        raise RuntimeError(f"an exporter of {event.service_id}")

    stage.plane.events.listen(listen)
    await stage.plane.open([declare()])

    await served(stage)

    assert stage.plane.service("svc").state is State.READY
    assert any("an exporter of svc" in line for line in logged)


async def test_what_routes_requests_may_raise_without_harm(stage: Stage, logged: list[str]) -> None:
    def publish(_: object) -> None:
        raise RuntimeError("no routes")

    stage.plane.offers_changed.add(publish)
    await stage.plane.open([declare()])

    await served(stage)

    assert stage.plane.service("svc").state is State.READY
    assert any("no routes" in line for line in logged)


async def test_a_listing_that_raises_the_unexpected_is_asked_for_again(
    stage: Stage, logged: list[str]
) -> None:
    stage.runtime.breaks = True
    await stage.plane.open([declare()])
    with pytest.raises(RuntimeUnavailableError, match="cannot determine whether svc is running: unexpected"):
        await stage.plane.scheduler.admit(Ask("svc"))

    stage.runtime.breaks = False
    await stage.clock.advance(2)

    await served(stage)
    assert any("Traceback" in line for line in logged)


async def test_a_defect_of_the_supervisor_itself_is_logged_and_its_task_runs_again(logged: list[str]) -> None:
    clock, runtime, engine = FakeClock(), FakeRuntime(FakeClock()), FakeProbeEngine("fake")
    asked: list[Ask] = []

    def decide(_: Supervisor, ask: Ask) -> Decision:
        asked.append(ask)
        if len(asked) == 1:
            raise ZeroDivisionError("a defect")
        return Start(ask.reason)

    background = Background(clock.sleep, clock.now, clock.wall)
    assignment = Assignment(declare(start=StartPolicy.ALWAYS), runtime, engine)
    supervisor = Supervisor(assignment, clock, EventBus(clock.wall), background, decide, lambda: None)

    supervisor.begin()
    await clock.advance(2)

    assert supervisor.state is State.READY
    assert background.restarts["supervisor"].count == 1
    assert any("a defect" in line for line in logged)
    await supervisor.detach()


# Every request that waits is refused with an error of its own.


async def test_errors_do_not_grow_with_the_number_of_those_who_get_them(stage: Stage) -> None:
    stage.runtime.behave("svc", Behaviour.START_FAILS)
    await stage.plane.open([replace(declare(), max_waiting=1000)])

    requests = [ask(stage) for _ in range(200)]
    await stage.clock.advance(2)
    errors = [request.exception() for request in requests]

    assert len({id(error) for error in errors}) == 200
    assert all(error and len(traceback.extract_tb(error.__traceback__)) < 10 for error in errors)


async def test_a_stop_that_fails_raises_an_error_of_its_own_each_time(stage: Stage) -> None:
    await stage.plane.open([declare()])
    await served(stage)
    stage.runtime.behave("svc", Behaviour.STOP_FAILS)

    sizes = []
    for _ in range(30):
        try:
            await stage.plane.stop("svc")
        except Exception as error:  # noqa: BLE001 - its traceback is what is looked at
            sizes.append(len(traceback.extract_tb(error.__traceback__)))
        await settle()
    stage.runtime.behave("svc", Behaviour.NORMAL)

    assert sizes
    assert max(sizes) < 10


async def test_a_request_waits_no_longer_than_its_client(stage: Stage) -> None:
    stage.engine.set_ready("svc", ready=False)
    await stage.plane.open([declare()])

    request = spawn(
        stage.plane.scheduler.admit(Ask("svc", deadline=stage.clock.now() + 3.0)), "request with a deadline"
    )
    await stage.clock.advance(4)

    assert request.done()
    with pytest.raises(StartTimeoutError, match="not become ready within 3 s"):
        await request


async def test_why_a_request_waits_is_told_in_words(stage: Stage) -> None:
    stage.runtime.behave("svc", Behaviour.SLOW_START)
    stage.engine.set_ready("svc", ready=False)
    await stage.plane.open([declare()])

    before = stage.plane.scheduler.wait_reason("svc")
    request = ask(stage)
    await stage.clock.advance(1)
    starting = stage.plane.scheduler.wait_reason("svc")
    shown = stage.plane.service("svc").wait_reason
    stage.runtime.behave("svc", Behaviour.NORMAL)
    request.cancel()

    assert (before, starting, shown) == ("", "svc is starting: launching svc", starting)
    assert stage.runtime.placements == [AS_DECLARED]


async def test_every_start_says_who_asked_for_it(stage: Stage) -> None:
    await stage.plane.open([declare("request"), declare("hand"), declare("always", start=StartPolicy.ALWAYS)])

    await served(stage, "request")
    await started_by_hand(stage, "hand")

    reasons = {e.service_id: e.reason for e in stage.plane.events.recent() if e.state is State.STARTING}
    assert reasons == {
        "request": "a request came",
        "hand": "started by hand",
        "always": "it is declared to run always",
    }


# The proxy itself may be stopped, as by SIGSTOP or by the sleep of the machine.


async def test_what_got_ready_while_the_proxy_was_stopped_is_ready(stage: Stage) -> None:
    stage.engine.set_ready("svc", ready=False)
    await stage.plane.open([declare()])
    request = ask(stage)
    await stage.clock.advance(5)

    stage.engine.set_ready("svc", ready=True)
    await stage.clock.leap(60)

    assert stage.plane.scheduler.stands(await request)


async def test_what_hangs_while_the_proxy_was_stopped_is_given_up(stage: Stage) -> None:
    stage.engine.set_ready("svc", ready=False)
    await stage.plane.open([declare()])
    request = ask(stage)
    await stage.clock.advance(5)

    stage.engine.hangs.add("svc")
    await stage.clock.leap(60)
    await stage.clock.advance(1)

    with pytest.raises(ServiceFailedError, match="not ready within 30 s of its start: loading model"):
        await request


async def test_a_request_waits_for_as_long_as_a_pull_makes_progress(stage: Stage) -> None:
    stage.runtime.delay = 300.0
    stage.runtime.behave("svc", Behaviour.PULLS)
    await stage.plane.open([declare()])

    request = ask(stage)
    await stage.clock.advance(299)
    waits = not request.done()
    await stage.clock.advance(5)

    assert waits
    assert stage.plane.scheduler.stands(await request)


# Another program may have the address of a service.


@pytest.mark.threat("a local user", "prompts, by taking a backend's port")
async def test_what_another_program_answers_does_not_make_a_service_ready(stage: Stage) -> None:
    await stage.plane.open([declare()])
    stage.runtime.strangers["svc"] = "another program listens on its port 8080"

    request = ask(stage)
    await stage.clock.advance(5)
    probes, during = stage.engine.probes["svc"], stage.plane.service("svc").state
    del stage.runtime.strangers["svc"]
    await stage.clock.advance(2)

    assert (probes, during) == (0, State.LOADING)
    assert stage.plane.scheduler.stands(await request)


@pytest.mark.threat("a local user", "prompts, by taking a backend's port")
async def test_a_start_fails_with_the_name_of_the_program_that_has_its_address(stage: Stage) -> None:
    await stage.plane.open([declare()])
    stage.runtime.strangers["svc"] = "another program listens on its port 8080"

    request = ask(stage)
    await stage.clock.advance(31)

    with pytest.raises(ServiceFailedError, match="another program listens on its port 8080"):
        await request


@pytest.mark.threat("a local user", "prompts, by taking a backend's port")
async def test_a_lease_does_not_stand_while_another_program_has_the_address(stage: Stage) -> None:
    await stage.plane.open([declare()])
    lease = await served(stage)

    stage.runtime.strangers["svc"] = "another program listens on its port 8080"

    assert not stage.plane.scheduler.stands(lease)


# A lease belongs to one running instance.


async def test_a_service_declared_again_while_it_ends_is_replaced_and_not_doubled(stage: Stage) -> None:
    await stage.plane.open([replace(declare(), stop_grace=10.0)])
    old = await served(stage)
    stage.runtime.behave("svc", Behaviour.IGNORES_STOP)
    removing = spawn(stage.plane.apply([]), "reload")
    await stage.clock.advance(4.5)
    await removing

    await stage.plane.apply([declare()])
    request = ask(stage)
    await stage.clock.advance(1)
    during = stage.plane.service("svc")
    await stage.clock.advance(6)
    new = await request
    stage.plane.scheduler.release(old, Outcome.BROKEN)
    in_flight = stage.plane.service("svc").in_flight
    stage.runtime.behave("svc", Behaviour.NORMAL)
    await stage.clock.advance(500)
    still = stage.plane.service("svc")
    stage.plane.scheduler.release(new, Outcome.OK)

    assert (during.state, during.waiting) == (State.STOPPING, 1)
    assert stage.runtime.machine.most["svc"] == 1
    assert in_flight == 1
    assert still.state is State.READY, "a request is under way, so it is not idle"


async def test_a_removed_service_that_still_ends_is_ended_before_the_proxy(stage: Stage) -> None:
    await stage.plane.open([replace(declare(), stop_grace=20.0)])
    await served(stage)
    stage.runtime.behave("svc", Behaviour.IGNORES_STOP)
    removing = spawn(stage.plane.apply([]), "reload")
    await stage.clock.advance(4.5)
    await removing

    closing = spawn(stage.plane.close(), "close")
    await stage.clock.advance(14)
    before = len(stage.runtime.machine.running("svc"))
    await stage.clock.advance(3)
    await closing

    assert before == 1
    assert stage.runtime.machine.running("svc") == []


async def test_a_lease_from_before_a_removal_is_not_charged_to_the_service_that_follows() -> None:
    clock, engine = FakeClock(), FakeProbeEngine("fake")
    plane = ControlPlane(clock, {RuntimeKind.EXTERNAL: ExternalRuntime()}, {"fake": engine}, NullRecorder())
    launch = ExternalLaunch((Upstream("127.0.0.1", 1001), Upstream("127.0.0.1", 1002)))
    service = replace(declare(start=StartPolicy.ALWAYS), launch=launch)
    await plane.open([service])
    await clock.advance(2)
    before = [plane.scheduler.acquire("svc") for _ in range(3)]
    for services in ([], [service]):
        reloading = spawn(plane.apply(services), "reload")
        await clock.advance(2)
        await reloading

    for lease in before:
        assert lease is not None
        plane.scheduler.release(lease, Outcome.OK)
    after = [plane.scheduler.acquire("svc") for _ in range(4)]

    assert plane.service("svc").in_flight == 4
    assert sorted(lease.upstream.port for lease in after if lease) == [1001, 1001, 1002, 1002]
    closing = spawn(plane.close(), "close")
    await clock.advance(60)
    await closing


async def test_what_a_runtime_reports_is_shown_and_used(stage: Stage) -> None:
    await stage.plane.open([declare()])
    lease = await served(stage)
    usage = ResourceUsage(1.0, None, 10, 10, 100, 0, 0, pids=3)
    moved = Upstream("127.0.0.1", 29999)

    stage.runtime.report("svc", usage)
    stage.runtime.report("svc", UpstreamsChanged((moved,)))
    await settle()
    after = stage.plane.scheduler.acquire("svc")

    assert stage.plane.service("svc").stats == usage
    assert after is not None
    assert after.upstream == moved
    assert not stage.plane.scheduler.stands(lease)
    stage.plane.scheduler.release(lease, Outcome.BROKEN)
    stage.plane.scheduler.release(after, Outcome.OK)


async def test_a_change_taken_back_while_the_old_instance_drains_is_taken_back(stage: Stage) -> None:
    await stage.plane.open([declare()])
    lease = await served(stage)

    await stage.plane.apply([declare(config_hash="2")])
    await settle()
    await stage.plane.apply([declare(config_hash="1")])
    stage.plane.scheduler.release(lease, Outcome.OK)
    await stage.clock.advance(2)

    assert stage.plane.service("svc").state is State.READY
    assert [one.handle.config_hash for one in stage.runtime.machine.running("svc")] == ["1"]


async def test_a_setting_changed_while_the_old_instance_drains_is_that_of_the_new_one(stage: Stage) -> None:
    await stage.plane.open([declare()])
    lease = await served(stage)

    await stage.plane.apply([declare(config_hash="2")])
    await settle()
    await stage.plane.apply([replace(declare(config_hash="2"), idle_timeout=7.0)])
    running = stage.runtime.machine.running("svc")[0].handle.config_hash
    stage.plane.scheduler.release(lease, Outcome.OK)
    await stage.clock.advance(2)
    replaced = stage.runtime.machine.running("svc")[0].handle.config_hash
    await stage.clock.advance(8)

    assert (running, replaced) == ("1", "2")
    assert stage.plane.service("svc").state is State.STOPPED


async def test_closing_ends_what_was_removed_and_still_ends() -> None:
    stage = build(FakeClock())
    await stage.plane.open([replace(declare(), stop_grace=10.0)])
    await served(stage)
    stage.runtime.behave("svc", Behaviour.IGNORES_STOP)
    removing = spawn(stage.plane.apply([]), "reload")
    await stage.clock.advance(4.5)
    await removing

    await close(stage)

    assert not stage.runtime.machine.running()


# A runtime that is away, and what it left running.


async def test_a_service_declared_while_its_runtime_is_away_is_refused_and_begins_when_it_is_back(
    stage: Stage,
) -> None:
    stage.runtime.available = False
    await stage.plane.open([])
    await stage.plane.apply([declare("new")])
    await settle()

    with pytest.raises(RuntimeUnavailableError, match="whether new is running: the machine is"):
        await stage.plane.scheduler.admit(Ask("new"))
    stage.runtime.available = True
    await stage.clock.advance(6)

    await served(stage, "new")


async def test_a_service_that_changes_its_runtime_while_that_is_away_begins_with_the_other(
    stage: Stage,
) -> None:
    stage.runtime.available = False
    await stage.plane.open([declare()])
    elsewhere = ExternalLaunch((Upstream("127.0.0.1", 1001),))

    await stage.plane.apply([replace(declare(config_hash="2"), launch=elsewhere)])

    lease = await served(stage)
    assert lease.upstream.port == 1001
    stage.plane.scheduler.release(lease, Outcome.OK)


async def test_a_request_that_waits_is_refused_when_its_runtime_turns_out_to_be_away(stage: Stage) -> None:
    stage.runtime.listing_delay = 10.0
    opening = spawn(stage.plane.open([declare()]), "open")
    await stage.clock.advance(4)
    await opening
    request = ask(stage)
    await settle()
    waits = not request.done()

    stage.runtime.breaks = True
    stage.runtime.listing_delay = 0.0
    await stage.clock.advance(20)

    assert waits
    assert request.done()
    request.exception()
    stage.runtime.breaks = False


async def test_a_service_added_at_the_moment_its_runtime_comes_back_begins(stage: Stage) -> None:
    stage.runtime.available = False
    await stage.plane.open([declare("old")])
    stage.runtime.available, stage.runtime.listing_delay = True, 3.0
    await stage.clock.advance(1.5)

    await stage.plane.apply([declare("old"), declare("newest")])
    await stage.clock.advance(60)

    assert await started_by_hand(stage, "newest") is State.READY
    assert await started_by_hand(stage, "old") is State.READY


async def test_orphans_are_swept_side_by_side_and_delay_nothing() -> None:
    stage = build(FakeClock())
    for number in range(4):
        stage.runtime.machine.run(declare(f"gone{number}"), stage.clock.wall())
        stage.runtime.behave(f"gone{number}", Behaviour.IGNORES_STOP)

    await stage.plane.open([declare()])
    await stage.clock.advance(6)

    assert not stage.runtime.machine.running()
    await close(stage)


@pytest.mark.parametrize("changed", [{"config_hash": "old"}, {"version": 99}])
async def test_what_cannot_be_adopted_ends_before_its_service_starts(changed: dict[str, str]) -> None:
    machine, clock = Machine(), FakeClock()
    running = machine.run(declare(), clock.wall())
    running.handle = replace(running.handle, **changed)  # type: ignore[arg-type]
    stage = build(clock, machine)
    stage.runtime.behave("svc", Behaviour.IGNORES_STOP)

    await stage.plane.open([declare()])
    request = ask(stage)
    await clock.advance(1)
    during = stage.plane.service("svc").state
    await clock.advance(5)
    await request

    assert during is State.STOPPING
    assert machine.most["svc"] == 1
    stage.runtime.behave("svc", Behaviour.NORMAL)
    await close(stage)


async def test_a_service_declared_while_its_orphan_is_swept_waits_for_its_end() -> None:
    machine, clock = Machine(), FakeClock()
    machine.run(declare(), clock.wall())
    stage = build(clock, machine)
    stage.runtime.behave("svc", Behaviour.IGNORES_STOP)
    await stage.plane.open([])

    await stage.plane.apply([declare()])
    request = ask(stage)
    await clock.advance(20)
    await request

    assert machine.most["svc"] == 1
    stage.runtime.behave("svc", Behaviour.NORMAL)
    await close(stage)


# What runs by itself costs little while it is away.


async def test_an_external_service_whose_health_checks_hang_counts_as_gone(stage: Stage) -> None:
    launch = ExternalLaunch((Upstream("127.0.0.1", 1001),))
    await stage.plane.open([replace(declare(start=StartPolicy.ALWAYS), launch=launch)])
    await stage.clock.advance(2)
    before = stage.plane.service("svc").state

    stage.engine.hangs.add("svc")
    await stage.clock.advance(60)

    assert before is State.READY
    assert stage.plane.service("svc").failure in (
        "3 health checks failed: no answer",
        "not reached: no answer",
    )


async def test_a_dead_external_service_is_asked_rarely_and_at_once_for_a_request() -> None:
    clock, engine = FakeClock(), FakeProbeEngine("fake")
    plane = ControlPlane(clock, {RuntimeKind.EXTERNAL: ExternalRuntime()}, {"fake": engine}, NullRecorder())
    launch = ExternalLaunch((Upstream("127.0.0.1", 1001),))
    engine.set_ready("svc", ready=False)
    await plane.open([replace(declare(start=StartPolicy.ALWAYS), launch=launch, start_timeout=10.0)])
    await clock.advance(120)

    before = engine.probes["svc"]
    await clock.advance(300)
    rarely = engine.probes["svc"] - before
    engine.set_ready("svc", ready=True)
    request = spawn(plane.scheduler.admit(Ask("svc")), "request")
    await clock.advance(0.1)

    assert rarely <= 11
    assert request.done()
    plane.scheduler.release(request.result(), Outcome.OK)
    closing = spawn(plane.close(), "close")
    await clock.advance(60)
    await closing
