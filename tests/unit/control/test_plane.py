import asyncio
import gc
from dataclasses import replace

import pytest
from loguru import logger
from tests.unit.control.conftest import Stage, build, close, declare

from ai_proxy.control.holds import Holds
from ai_proxy.core.errors import (
    InvalidConfigError,
    QueueFullError,
    ServiceFailedError,
    ServiceStoppedError,
    ShuttingDownError,
    StartTimeoutError,
    StoreError,
    UnknownServiceError,
)
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import State
from ai_proxy.core.ports import Model
from ai_proxy.core.routing import MAX_LISTED, MAX_LISTED_NAME
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import DockerLaunch, Lease, Outcome, Service, StartPolicy
from ai_proxy.platform.tasks import spawn
from ai_proxy.testing.fakes import Behaviour, FakeClock, Machine, settle


def ask(stage: Stage, name: str = "svc") -> "asyncio.Task[Lease]":
    return spawn(stage.plane.scheduler.admit(Ask(name)), f"request for {name}")


async def ready(stage: Stage, service: Service) -> Lease:
    await stage.plane.open([service])
    lease = ask(stage, service.id)
    await stage.clock.advance(1)
    return await lease


async def test_the_first_request_starts_the_service_and_the_others_join(stage: Stage) -> None:
    await stage.plane.open([declare()])

    requests = [ask(stage) for _ in range(5)]
    await stage.clock.advance(1)
    leases = await asyncio.gather(*requests)

    assert [call for call in stage.runtime.calls if call[0] == "start"] == [("start", "svc")]
    assert stage.plane.service("svc").in_flight == 5
    assert len({id(lease) for lease in leases}) == 5


async def test_a_ready_service_is_served_at_once(stage: Stage) -> None:
    lease = await ready(stage, declare())

    again = stage.plane.scheduler.acquire("svc")

    assert again is not None
    assert again.upstream == lease.upstream


async def test_a_lease_is_given_back_once(stage: Stage) -> None:
    lease = await ready(stage, declare())
    stage.plane.scheduler.release(lease, Outcome.OK)

    with pytest.raises(RuntimeError, match="twice"):
        stage.plane.scheduler.release(lease, Outcome.OK)

    assert stage.plane.service("svc").in_flight == 0


async def test_an_unused_service_is_stopped_and_started_again_by_the_next_request(stage: Stage) -> None:
    lease = await ready(stage, declare())
    stage.plane.scheduler.release(lease, Outcome.OK)

    await stage.clock.advance(99)
    before = stage.plane.service("svc").state
    await stage.clock.advance(2)
    after = stage.plane.service("svc").state
    request = ask(stage)
    await stage.clock.advance(1)
    await request

    assert (before, after) == (State.READY, State.STOPPED)
    assert stage.plane.service("svc").starts == 2


async def test_an_open_stream_is_not_idle(stage: Stage) -> None:
    lease = await ready(stage, declare())

    await stage.clock.advance(10_000)
    during = stage.plane.service("svc").state
    stage.plane.scheduler.release(lease, Outcome.OK)
    await stage.clock.advance(99)
    soon_after = stage.plane.service("svc").state
    await stage.clock.advance(100)

    assert (during, soon_after) == (State.READY, State.READY)
    assert stage.plane.service("svc").state is State.STOPPED


async def test_a_service_without_idle_timeout_is_kept(stage: Stage) -> None:
    lease = await ready(stage, replace(declare(), idle_timeout=0.0))
    stage.plane.scheduler.release(lease, Outcome.OK)

    await stage.clock.advance(1_000_000)

    assert stage.plane.service("svc").state is State.READY


async def test_a_stop_by_hand_holds_until_a_start_by_hand(stage: Stage) -> None:
    await ready(stage, declare())

    stopping = spawn(stage.plane.stop("svc", wait=5), "stop")
    await stage.clock.advance(1)
    view = await stopping
    with pytest.raises(ServiceStoppedError, match="ai-proxy start svc"):
        await stage.plane.scheduler.admit(Ask("svc"))
    starting = spawn(stage.plane.start("svc", wait=5), "start")
    await stage.clock.advance(1)

    assert view.state is State.STOPPED
    assert view.held
    assert (await starting).state is State.READY


class KeptSettings:
    """A store of settings that outlives a plane."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.fails = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def all(self) -> dict[str, object]:
        return self.values

    async def get(self, name: str) -> object | None:
        return self.values.get(name)

    async def put(self, name: str, value: object) -> None:
        if self.fails:
            raise StoreError("the disk is full")
        await self.answers.wait()
        self.values[name] = value

    async def drop(self, name: str) -> None:
        del self.values[name]


async def test_what_was_stopped_by_hand_stays_so_when_the_proxy_is_restarted() -> None:
    clock, machine, settings = FakeClock(), Machine(), KeptSettings()
    before = build(clock, machine, holds=Holds(settings, "me"))
    services = [declare("always", start=StartPolicy.ALWAYS), declare("svc")]
    await before.plane.open(services)
    await clock.advance(1)
    for name in ("always", "svc"):
        await before.plane.stop(name)
    await clock.advance(5)
    await close(before)

    after = build(clock, machine, holds=Holds(settings, "me"))
    await after.plane.open(services)
    await clock.advance(5)
    with pytest.raises(ServiceStoppedError):
        await after.plane.scheduler.admit(Ask("svc"))
    states = {view.id: (view.state, view.held) for view in after.plane.services()}
    await after.plane.start("svc")
    kept = list(settings.values.values())
    await close(after)

    assert states == dict.fromkeys(("always", "svc"), (State.STOPPED, True))
    assert kept == [["always"]]


async def test_what_was_to_be_stopped_when_the_proxy_died_is_ended_by_the_next() -> None:
    clock, machine, settings = FakeClock(), Machine(), KeptSettings()
    before = build(clock, machine, holds=Holds(settings, "me"))
    await ready(before, declare())
    before.runtime.behave("svc", Behaviour.IGNORES_STOP)
    await before.plane.stop("svc")
    assert machine.running("svc")

    after = build(clock, machine, holds=Holds(settings, "me"))
    await after.plane.open([declare()])
    await clock.advance(5)
    view = after.plane.service("svc")
    await close(after)
    await close(before)

    assert (view.state, view.held) == (State.STOPPED, True)
    assert not machine.running("svc")


async def test_a_stop_by_hand_holds_although_it_cannot_be_saved() -> None:
    clock, settings = FakeClock(), KeptSettings()
    settings.fails = True
    stage = build(clock, holds=Holds(settings, "me"))
    await ready(stage, declare())

    await stage.plane.stop("svc")
    await clock.advance(5)
    view = stage.plane.service("svc")
    await close(stage)

    assert (view.state, view.held) == (State.STOPPED, True)


async def test_a_stop_by_hand_waits_for_no_store_that_is_locked() -> None:
    clock, settings = FakeClock(), KeptSettings()
    stage = build(clock, holds=Holds(settings, "me"))
    await ready(stage, declare())
    settings.answers.clear()

    stopping = spawn(stage.plane.stop("svc", wait=5), "stop")
    await clock.advance(1.5)
    stopped_meanwhile = stopping.done()
    settings.answers.set()
    await settle()
    kept = list(settings.values.values())
    await close(stage)

    assert stopped_meanwhile
    assert (await stopping).state is State.STOPPED
    assert kept == [["svc"]]


async def test_an_unload_does_not_hold(stage: Stage) -> None:
    lease = await ready(stage, declare())
    stage.plane.scheduler.release(lease, Outcome.OK)

    unloading = spawn(stage.plane.unload("svc", wait=5), "unload")
    await stage.clock.advance(1)
    unloaded = (await unloading).state
    request = ask(stage)
    await stage.clock.advance(1)
    await request

    assert unloaded is State.STOPPED


async def test_an_unload_lets_requests_in_flight_finish_but_not_for_ever(stage: Stage) -> None:
    lease = await ready(stage, declare())

    await stage.plane.unload("svc")
    await stage.clock.advance(19)
    during = stage.plane.service("svc").state
    await stage.clock.advance(2)

    assert during is State.DRAINING
    assert stage.plane.service("svc").state is State.STOPPED
    stage.plane.scheduler.release(lease, Outcome.BROKEN)


async def test_a_restart_serves_who_came_meanwhile_from_the_new_instance(stage: Stage) -> None:
    old = await ready(stage, declare())

    restarting = spawn(stage.plane.restart("svc", wait=10), "restart")
    await settle()
    request = ask(stage)
    await settle()
    waiting = stage.plane.service("svc").waiting
    stage.plane.scheduler.release(old, Outcome.OK)
    await stage.clock.advance(1)

    assert waiting == 1
    assert (await request).upstream != old.upstream
    assert (await restarting).state is State.READY


async def test_a_manual_service_waits_for_a_hand(stage: Stage) -> None:
    await stage.plane.open([declare(start=StartPolicy.MANUAL)])

    with pytest.raises(ServiceStoppedError, match="by hand only"):
        await stage.plane.scheduler.admit(Ask("svc"))
    starting = spawn(stage.plane.start("svc", wait=5), "start")
    await stage.clock.advance(1)

    assert (await starting).state is State.READY


async def test_an_always_service_starts_by_itself_and_comes_back_after_a_crash(stage: Stage) -> None:
    await stage.plane.open([declare(start=StartPolicy.ALWAYS)])
    await stage.clock.advance(1)
    started = stage.plane.service("svc").state

    stage.runtime.crash("svc")
    await stage.clock.advance(0.5)
    crashed = stage.plane.service("svc").state
    await stage.clock.advance(2)

    assert (started, crashed) == (State.READY, State.FAILED)
    assert stage.plane.service("svc").state is State.READY


@pytest.mark.parametrize("moments", range(12))
async def test_a_start_that_fails_while_it_is_given_up_leaves_no_error_behind(
    stage: Stage, moments: int
) -> None:
    unnoticed: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unnoticed.append(context["message"]))
    await stage.plane.open([declare()])
    stage.runtime.behave("svc", Behaviour.START_FAILS)

    asking = ask(stage)
    for _ in range(moments):
        await asyncio.sleep(0)
    await stage.plane.stop("svc")
    await stage.clock.advance(1)
    await asyncio.gather(asking, return_exceptions=True)
    gc.collect()

    assert unnoticed == []


async def test_an_earlier_failure_is_not_that_of_a_start_just_asked_for(stage: Stage) -> None:
    await ready(stage, declare())
    stage.runtime.crash("svc")
    await settle()
    crashed = stage.plane.service("svc").state

    await stage.plane.restart("svc")
    await stage.clock.advance(1)

    assert crashed is State.FAILED
    assert stage.plane.service("svc").state is State.READY


async def test_a_crash_is_told_with_its_exit_code_and_last_lines_and_backs_off(stage: Stage) -> None:
    lease = await ready(stage, declare())
    stage.plane.scheduler.release(lease, Outcome.BROKEN)

    stage.runtime.crash("svc", code=139, lines=["loading", "segmentation fault"])
    await settle()
    view = stage.plane.service("svc")
    with pytest.raises(ServiceFailedError) as refused:
        await stage.plane.scheduler.admit(Ask("svc"))
    await stage.clock.advance(1)
    request = ask(stage)
    await stage.clock.advance(1)

    assert (view.state, view.exit_code) == (State.FAILED, 139)
    assert view.failure == "exit code 139: segmentation fault"
    assert refused.value.detail == "svc failed: exit code 139"
    assert refused.value.log_tail == ("loading", "segmentation fault")
    assert refused.value.retry_after == 1
    await request


async def test_back_off_doubles_with_every_failure_in_a_row(stage: Stage) -> None:
    stage.runtime.behave("svc", Behaviour.EXITS_AT_ONCE)
    stage.engine.set_ready("svc", ready=False)
    await stage.plane.open([declare()])

    pauses = []
    for _ in range(4):
        request = ask(stage)
        await settle()
        with pytest.raises(ServiceFailedError):
            await request
        pauses.append(stage.plane.service("svc").retry_in)
        await stage.clock.advance(pauses[-1])

    assert pauses == [1.0, 2.0, 4.0, 8.0]


async def test_who_waits_for_a_start_that_fails_is_told_why(stage: Stage) -> None:
    stage.runtime.behave("svc", Behaviour.START_FAILS)
    await stage.plane.open([declare()])

    requests = [ask(stage) for _ in range(3)]
    await stage.clock.advance(0.1)
    answers = await asyncio.gather(*requests, return_exceptions=True)

    assert all(isinstance(answer, ServiceFailedError) for answer in answers)
    assert "told to fail" in str(answers[0])


async def test_a_start_that_never_answers_is_given_up_and_leaves_nothing(stage: Stage) -> None:
    stage.runtime.behave("svc", Behaviour.LOST_ANSWER)
    await stage.plane.open([declare()])

    request = ask(stage)
    await stage.clock.advance(29)
    during = stage.plane.service("svc").state
    await stage.clock.advance(2)

    assert during is State.STARTING
    with pytest.raises(ServiceFailedError, match="30 s"):
        await request
    assert stage.plane.service("svc").state is State.FAILED
    assert not stage.runtime.machine.running()


async def test_a_service_that_never_gets_ready_fails_with_what_the_engine_said(stage: Stage) -> None:
    stage.engine.set_ready("svc", ready=False)
    await stage.plane.open([declare()])

    request = ask(stage)
    await stage.clock.advance(31)

    with pytest.raises(ServiceFailedError, match="loading model"):
        await request
    assert not stage.runtime.machine.running()


async def test_a_request_waits_no_longer_than_a_start_may_take(stage: Stage) -> None:
    lease = await ready(stage, declare())
    stage.runtime.behave("svc", Behaviour.STOP_FAILS)
    await stage.plane.unload("svc")
    stage.plane.scheduler.release(lease, Outcome.OK)
    await settle()

    request = ask(stage)
    await stage.clock.advance(40)

    with pytest.raises(StartTimeoutError, match="stopping"):
        await request
    assert stage.plane.service("svc").waiting == 0
    stage.runtime.behave("svc", Behaviour.NORMAL)


async def test_a_stop_is_tried_until_there_is_proof(stage: Stage) -> None:
    await ready(stage, declare())
    stage.runtime.behave("svc", Behaviour.STOP_FAILS)

    await stage.plane.stop("svc")
    await stage.clock.advance(30)
    during = stage.plane.service("svc")
    stage.runtime.behave("svc", Behaviour.NORMAL)
    await stage.clock.advance(61)

    assert during.state is State.STOPPING
    assert "told to stay" in during.reason
    assert stage.plane.service("svc").state is State.STOPPED


async def test_the_queue_is_bounded(stage: Stage) -> None:
    stage.engine.set_ready("svc", ready=False)
    await stage.plane.open([declare()])
    requests = [ask(stage) for _ in range(10)]
    await settle()

    with pytest.raises(QueueFullError):
        await stage.plane.scheduler.admit(Ask("svc"))

    for request in requests:
        request.cancel()
    await settle()
    assert stage.plane.service("svc").waiting == 0


async def test_a_client_that_gives_up_as_it_is_served_leaves_no_lease_behind(stage: Stage) -> None:
    await stage.plane.open([declare()])
    request = ask(stage)

    def give_up(event: ServiceEvent) -> None:
        if event.state is State.READY:
            request.cancel()

    stop = stage.plane.events.listen(give_up)

    await stage.clock.advance(1)

    stop()
    assert request.cancelled()
    assert stage.plane.service("svc").in_flight == 0


async def test_unknown_services_are_told_with_near_names(stage: Stage) -> None:
    await stage.plane.open([declare("llama3")])

    with pytest.raises(UnknownServiceError, match="did you mean 'llama3'"):
        stage.plane.service("lama3")
    with pytest.raises(UnknownServiceError, match="did you mean 'llama3'"):
        await stage.plane.scheduler.admit(Ask("lama3"))


async def test_models_are_the_service_and_what_its_engine_lists(stage: Stage) -> None:
    stage.engine.listed["svc"] = (Model("tiny.gguf"),)

    await ready(stage, declare())

    assert stage.plane.service("svc").models == ("svc", "tiny.gguf")


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
async def test_a_list_without_end_is_cut_and_the_log_says_so(stage: Stage) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    long, many = Model("x" * (MAX_LISTED_NAME + 1)), [Model(f"m{n}") for n in range(MAX_LISTED + 1)]
    stage.engine.listed["svc"] = (long, *many)

    await ready(stage, declare())
    logger.remove(sink)

    assert stage.plane.service("svc").models == ("svc", *(f"m{n}" for n in range(MAX_LISTED)))
    omitted = "only the first 2000 are; 1 with a name of more than 500 characters"
    assert f"not all models of svc are offered: {omitted}" in "".join(lines)


@pytest.mark.threat("a local user", "requests for another service")
async def test_what_was_found_running_takes_no_model_of_a_declared_service(stage: Stage) -> None:
    stage.engine.listed |= {"svc": (Model("phi"),), "ollama": (Model("phi"),)}
    await ready(stage, declare())

    await stage.plane.discover([declare("ollama")])
    request = ask(stage, "ollama")
    await stage.clock.advance(1)
    await request

    assert stage.plane.model("phi").service_id == "svc"
    assert stage.plane.model("ollama/phi").service_id == "ollama"


async def test_a_new_proxy_adopts_what_matches_and_sweeps_what_does_not() -> None:
    machine, clock = Machine(), FakeClock()
    before = build(clock, machine)
    await before.plane.open([declare("same"), declare("changed"), declare("gone")])
    for name in ("same", "changed", "gone"):
        request = ask(before, name)
        await clock.advance(1)
        await request
    ref = before.plane.service("same").ref

    after = build(clock, machine)
    await after.plane.open([declare("same"), declare("changed", config_hash="2")])
    await clock.advance(1)

    assert after.plane.service("same").state is State.READY
    assert after.plane.service("same").ref == ref
    assert after.plane.service("changed").state is State.STOPPED
    assert [instance.handle.ref for instance in machine.running()] == [ref]
    await close(after)
    await close(before)


async def test_a_reload_touches_only_what_changed(stage: Stage) -> None:
    await stage.plane.open([declare(name) for name in ("kept", "tuned", "replaced", "removed")])
    for name in ("kept", "tuned", "replaced", "removed"):
        request = ask(stage, name)
        await stage.clock.advance(1)
        stage.plane.scheduler.release(await request, Outcome.OK)
    refs = {view.id: view.ref for view in stage.plane.services()}

    new = [
        declare("kept"),
        replace(declare("tuned"), idle_timeout=7.0),
        declare("replaced", config_hash="2"),
        declare("added"),
    ]
    reloading = spawn(stage.plane.apply(new), "reload")
    await stage.clock.advance(2)
    report = await reloading

    views = {view.id: view for view in stage.plane.services()}
    assert (report.unchanged, report.updated) == (("kept",), ("tuned",))
    assert (report.restarted, report.removed, report.added) == (("replaced",), ("removed",), ("added",))
    assert views["kept"].ref == refs["kept"]
    assert views["tuned"].ref == refs["tuned"]
    assert views["replaced"].state is State.READY
    assert views["replaced"].ref != refs["replaced"]
    assert not stage.runtime.machine.running("removed")
    assert views["added"].state is State.STOPPED
    await stage.clock.advance(8)
    assert stage.plane.service("tuned").state is State.STOPPED


async def test_a_bad_reload_changes_nothing(stage: Stage) -> None:
    await stage.plane.open([declare()])
    docker = replace(declare("other"), launch=DockerLaunch("image", 8080))

    with pytest.raises(InvalidConfigError, match=r"services\.other: runtime 'docker'"):
        await stage.plane.apply([docker])

    assert [view.id for view in stage.plane.services()] == ["svc"]


async def test_a_reload_without_a_file_says_so(stage: Stage) -> None:
    with pytest.raises(InvalidConfigError, match="without a configuration file"):
        await stage.plane.reload()


async def test_closing_refuses_who_waits_and_leaves_nothing_running() -> None:
    stage = build(FakeClock())
    stage.engine.set_ready("svc", ready=False)
    await stage.plane.open([declare()])
    request = ask(stage)
    await settle()

    await close(stage)

    with pytest.raises(ShuttingDownError):
        await request
    assert not stage.runtime.machine.running()


async def test_closing_keeps_what_is_to_go_on_without_the_proxy() -> None:
    stage = build(FakeClock())
    await ready(stage, replace(declare(), keep_on_exit=True))

    await close(stage)

    assert len(stage.runtime.machine.running("svc")) == 1


async def test_what_runs_them_may_go_away_and_come_back(stage: Stage) -> None:
    lease = await ready(stage, declare())
    stage.runtime.available = False
    stage.plane.scheduler.release(lease, Outcome.OK)

    served = stage.plane.scheduler.acquire("svc")
    await stage.plane.stop("svc")
    await stage.clock.advance(5)
    during = stage.plane.service("svc").state
    stage.runtime.available = True
    await stage.clock.advance(61)

    assert served is not None, "requests to what runs do not need it"
    assert during is State.STOPPING
    assert stage.plane.service("svc").state is State.STOPPED


async def test_a_reload_does_not_wait_for_ever_for_a_service_that_cannot_be_stopped(stage: Stage) -> None:
    await ready(stage, declare())
    stage.runtime.behave("svc", Behaviour.STOP_FAILS)

    reloading = spawn(stage.plane.apply([]), "reload")
    await stage.clock.advance(11)
    report = reloading.result()
    still_running = len(stage.runtime.machine.running("svc"))
    stage.runtime.behave("svc", Behaviour.NORMAL)
    await stage.clock.advance(61)

    assert report.removed == ("svc",)
    assert still_running == 1
    assert not stage.runtime.machine.running("svc"), "it is ended as soon as that can be done"


async def test_closing_does_not_wait_for_ever_for_what_runs_them() -> None:
    stage = build(FakeClock())
    await ready(stage, declare())
    stage.runtime.available = False

    closing = spawn(stage.plane.close(), "close")
    await stage.clock.advance(20)

    assert closing.done()


async def test_a_lease_stands_as_long_as_its_backend_runs(stage: Stage) -> None:
    lease = await ready(stage, declare())
    before = stage.plane.scheduler.stands(lease)

    stage.runtime.crash("svc")
    await settle()
    after_the_crash = stage.plane.scheduler.stands(lease)
    stage.plane.scheduler.release(lease, Outcome.BROKEN)
    await stage.clock.advance(1)
    again = ask(stage)
    await stage.clock.advance(1)

    assert (before, after_the_crash) == (True, False)
    assert not stage.plane.scheduler.stands(lease), "another instance has another address"
    stage.plane.scheduler.release(await again, Outcome.OK)


async def test_a_service_that_is_configured_again_while_the_old_one_still_ends_starts_anew(
    stage: Stage,
) -> None:
    await ready(stage, declare())
    stage.runtime.behave("svc", Behaviour.STOP_FAILS)
    removing = spawn(stage.plane.apply([]), "reload")
    await stage.clock.advance(11)
    await removing

    await stage.plane.apply([declare()])
    stage.runtime.behave("svc", Behaviour.NORMAL)
    await stage.clock.advance(61)
    asking = ask(stage)
    await stage.clock.advance(1)

    stage.plane.scheduler.release(await asking, Outcome.OK)
    assert len(stage.runtime.machine.running("svc")) == 1
    assert stage.plane.service("svc").state is State.READY
