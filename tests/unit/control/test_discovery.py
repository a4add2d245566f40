"""Engines that run by themselves, among the services."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rigs.fake_detector import FakeDetector, detection
from tests.rigs.recorder import NullRecorder

from ai_proxy.control.discovery import SOON, Discovery, forget_changed, is_offered, is_unsure
from ai_proxy.control.listen_addresses import listen_addresses, own_addresses, undeclared
from ai_proxy.control.plane import ControlPlane
from ai_proxy.core.detection import EngineState, socket_address
from ai_proxy.core.lifecycle import State
from ai_proxy.core.ports import Runtime
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import (
    DockerLaunch,
    ExternalLaunch,
    Outcome,
    ProcessLaunch,
    RuntimeKind,
    Service,
    StartPolicy,
    Upstream,
)
from ai_proxy.core.settings import EngineSettings
from ai_proxy.platform.tasks import Background, cancel, spawn
from ai_proxy.runtimes.external import ExternalRuntime
from ai_proxy.testing.fakes import FakeClock, FakeProbeEngine, FakeRuntime

S = EngineState
INTERVAL = 300.0


def external(name: str, port: int, host: str = "127.0.0.1") -> Service:
    launch = ExternalLaunch((Upstream(host, port),))
    return Service(name, "t", "fake", launch, f"{host}:{port}", start=StartPolicy.ALWAYS)


def process(name: str, port: int | None = None, engine: str = "fake") -> Service:
    return Service(name, "t", engine, ProcessLaunch(("serve", name), port=port), f"{port}")


@dataclass
class House:
    """A control plane whose engines come and go."""

    clock: FakeClock
    plane: ControlPlane
    engine: FakeProbeEngine
    detector: FakeDetector
    discovery: Discovery

    @property
    def services(self) -> list[str]:
        return [one.id for one in self.plane.services()]


def declare(addresses: Mapping[str, str]) -> Sequence[Service]:
    return [external(engine, int(url.rpartition(":")[2])) for engine, url in addresses.items()]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    clock, engine, detector = FakeClock(), FakeProbeEngine("fake"), FakeDetector()
    runtimes: dict[str, Runtime] = {
        RuntimeKind.EXTERNAL: ExternalRuntime(),
        RuntimeKind.PROCESS: FakeRuntime(clock),
    }
    plane = ControlPlane(clock, runtimes, {"fake": engine}, NullRecorder())
    discovery = Discovery(plane, detector, declare, clock, EngineSettings(cache_ttl=INTERVAL))
    yield House(clock, plane, engine, detector, discovery)
    closing = spawn(plane.close(), "close")
    await clock.advance(60)
    await closing


@pytest.fixture
async def running(house: House) -> AsyncIterator[House]:
    """The house with the discovery at work, which has found nothing at first."""
    await house.plane.open([process("declared")])
    task = spawn(house.discovery.run(), "discover")
    await house.clock.advance(0)
    yield house
    await cancel(task)


async def test_a_healthy_engine_is_offered_while_it_is_there(running: House) -> None:
    running.detector.found["ollama"] = detection("ollama", address="http://127.0.0.1:11434")
    await running.clock.advance(INTERVAL)

    assert running.services == ["declared", "ollama"]
    assert running.plane.service("ollama").state is State.READY

    running.detector.found["ollama"] = detection("ollama", S.INSTALLED_ONLY)
    await running.clock.advance(INTERVAL)

    assert running.services == ["declared"]


async def test_engines_are_looked_for_once_in_an_interval(running: House) -> None:
    running.detector.found["ollama"] = detection("ollama")
    await running.clock.advance(INTERVAL)
    looks = len(running.detector.asked)

    await running.clock.advance(290)
    assert len(running.detector.asked) == looks
    await running.clock.advance(15)
    assert len(running.detector.asked) == looks + 1


async def test_an_engine_that_loads_is_offered_soon_after_it_is_ready(running: House) -> None:
    running.detector.found["ollama"] = detection("ollama", S.RUNNING_DEGRADED, models=())
    await running.clock.advance(INTERVAL)
    assert running.services == ["declared"]

    running.detector.found["ollama"] = detection("ollama")
    await running.clock.advance(SOON)

    assert running.detector.forgotten == ["ollama"]
    assert running.services == ["declared", "ollama"]


async def test_an_engine_that_fails_is_looked_at_at_once(running: House) -> None:
    running.detector.found["ollama"] = detection("ollama")
    await running.clock.advance(INTERVAL)
    running.detector.found["ollama"] = detection("ollama", S.ABSENT)
    running.engine.set_ready("ollama", ready=False)

    await running.clock.advance(60)

    assert running.services == ["declared"]


async def test_an_engine_that_comes_back_is_found_soon(running: House) -> None:
    running.detector.found["ollama"] = detection("ollama")
    await running.clock.advance(INTERVAL)
    running.detector.found["ollama"] = detection("ollama", S.INSTALLED_ONLY)
    await running.clock.advance(INTERVAL)
    running.detector.found["ollama"] = detection("ollama")

    await running.clock.advance(SOON)

    assert running.services == ["declared", "ollama"]


async def test_an_engine_that_stays_away_is_looked_for_less_and_less(running: House) -> None:
    running.detector.found["ollama"] = detection("ollama")
    await running.clock.advance(INTERVAL)
    running.detector.found["ollama"] = detection("ollama", S.INSTALLED_ONLY)
    await running.clock.advance(INTERVAL)
    before = len(running.detector.forgotten)

    await running.clock.advance(600)

    assert 5 <= len(running.detector.forgotten) - before <= 14


async def test_an_engine_that_moved_is_offered_where_it_is_now(running: House) -> None:
    running.detector.found["ollama"] = detection("ollama", address="http://127.0.0.1:1111")
    await running.clock.advance(INTERVAL)
    running.detector.found["ollama"] = detection("ollama", address="http://127.0.0.1:2222")
    await running.clock.advance(INTERVAL)

    assert running.plane.service("ollama").upstreams == ("http://127.0.0.1:2222",)


async def test_a_reload_keeps_what_was_found_and_leaves_it_alone(running: House) -> None:
    running.detector.found["ollama"] = detection("ollama")
    await running.clock.advance(INTERVAL)
    before = running.plane.service("ollama")

    report = await running.plane.apply([process("another")])

    assert running.services == ["ollama", "another"]
    assert running.plane.service("ollama") == before
    assert (report.added, report.removed) == (("another",), ("declared",))


async def test_a_find_leaves_declared_services_alone(running: House) -> None:
    request = spawn(running.plane.scheduler.admit(Ask("declared")), "request")
    await running.clock.advance(INTERVAL)
    before = running.plane.service("declared")

    running.detector.found["ollama"] = detection("ollama")
    await running.clock.advance(INTERVAL)

    assert running.services == ["declared", "ollama"]
    assert running.plane.service("declared") == before
    running.plane.scheduler.release(await request, Outcome.OK)


@pytest.mark.parametrize(
    "own", [external("ollama", 1), external("mine", 9), external("mine", 9, "localhost"), process("mine", 9)]
)
async def test_what_is_declared_under_the_name_or_address_precedes(house: House, own: Service) -> None:
    await house.plane.open([own])

    await house.plane.discover([external("ollama", 9)])

    assert house.services == [own.id]


async def test_what_was_found_is_offered_when_its_declaration_is_gone(house: House) -> None:
    await house.plane.open([external("mine", 9)])
    await house.plane.discover([external("ollama", 9)])

    reload = spawn(house.plane.apply([]), "reload")
    await house.clock.advance(10)
    await reload

    assert house.services == ["ollama"]


async def test_only_what_the_proxy_runs_is_its_own(house: House) -> None:
    await house.plane.open([process("mine"), external("other", 9)])

    assert [service.id for service, _ in house.plane.owned()] == ["mine"]


async def test_a_start_has_the_engine_asked_again(house: House) -> None:
    house.plane.events.listen(forget_changed(house.plane, house.detector, Background()))
    await house.plane.open([process("mine"), external("other", 9)])
    await house.clock.advance(1)
    assert house.detector.forgotten == []

    await house.plane.start("mine")
    await house.clock.advance(1)
    assert house.detector.forgotten == ["fake"]

    await house.plane.stop("mine")
    await house.clock.advance(10)
    assert house.detector.forgotten == ["fake", "fake"]


def test_what_the_proxy_runs_is_known_by_every_place_it_listens_at() -> None:
    docker = Service("boxed", "t", "fake", DockerLaunch("image", 80, host_port=3), "1")
    runs = [
        (process("fixed", 1), ()),
        (process("free"), (Upstream("127.0.0.1", 2),)),
        (docker, ()),
    ]

    assert own_addresses(runs) == {
        socket_address("127.0.0.1", 1): "service 'fixed'",
        socket_address("127.0.0.1", 2): "service 'free'",
        socket_address("127.0.0.1", 3): "service 'boxed'",
    }


SERVICES = st.lists(
    st.builds(external, st.sampled_from("abc"), st.integers(1, 4), st.sampled_from(["127.0.0.1", "box"])),
    max_size=4,
)


@given(SERVICES, SERVICES)
def test_nothing_is_offered_that_a_declaration_claims(found: list[Service], declared: list[Service]) -> None:
    offered = undeclared(found, declared)

    for one in found:
        claimed = any(
            one.id == other.id or listen_addresses(one) & listen_addresses(other) for other in declared
        )
        assert (one in offered) is not claimed


@pytest.mark.parametrize(
    ("state", "models", "already", "offered"),
    [
        (S.RUNNING_HEALTHY, (), False, True),
        (S.RUNNING_DEGRADED, ("tiny",), False, True),
        (S.RUNNING_DEGRADED, (), False, False),
        (S.RUNNING_DEGRADED, (), True, True),
        *[
            (state, (), already, False)
            for state in (S.ABSENT, S.INSTALLED_ONLY, S.ERROR_API, S.ERROR_NETWORK)
            for already in (False, True)
        ],
    ],
)
def test_which_engines_are_offered(
    state: EngineState, models: tuple[str, ...], already: bool, offered: bool
) -> None:
    assert is_offered(detection("ollama", state, models=models), already=already) is offered


def test_which_engines_are_looked_at_again_soon() -> None:
    unsure = {(state, known) for state in S for known in (False, True)}
    unsure = {(state, known) for state, known in unsure if is_unsure(detection("x", state), known=known)}

    assert unsure == {(state, True) for state in S if state is not S.RUNNING_HEALTHY} | {
        (S.RUNNING_DEGRADED, False)
    }
