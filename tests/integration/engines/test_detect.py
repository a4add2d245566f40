"""Detection against engines that answer over real sockets."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import cycle, islice

import aiohttp
import pytest
from aiohttp import web
from tests.rigs.recorded_engine import ENGINES, Mood, recorded_engine

from ai_proxy.core.detection import Detection, EngineState, UnknownEngineError, socket_address
from ai_proxy.core.settings import EngineSettings
from ai_proxy.engines.catalog import BUILT_IN
from ai_proxy.engines.detect.detector import Detector, MemoryCache
from ai_proxy.platform.clock import SystemClock
from ai_proxy.testing.contracts import closed_port

TITLES = {name: engine.title for name, engine in BUILT_IN.items() if engine.locator is not None}
LOCATORS = {name: engine.locator for name, engine in BUILT_IN.items() if engine.locator is not None}
S = EngineState

STATES = {
    Mood.HEALTHY: S.RUNNING_HEALTHY,
    Mood.EMPTY: S.RUNNING_HEALTHY,
    Mood.SLOW: S.RUNNING_DEGRADED,
    Mood.BUSY: S.RUNNING_DEGRADED,
    Mood.LOADING: S.RUNNING_DEGRADED,
    Mood.KEY_WANTED: S.ERROR_API,
    Mood.GARBAGE: S.ERROR_API,
    Mood.SILENT: S.ERROR_NETWORK,
    Mood.HANGS_UP: S.ERROR_NETWORK,
}
ABSENT, INSTALLED, OTHER = "absent", "installed", "other engine"
CONDITIONS = (ABSENT, INSTALLED, OTHER, *Mood)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def look(
    session: aiohttp.ClientSession,
    ports: Mapping[str, int],
    *,
    threshold_ms: int = 5000,
    failures: int = 1,
    timeout: float = 5.0,
    installed: frozenset[str] = frozenset(),
    owners: Mapping[tuple[str, int], str] | None = None,
) -> Detector:
    """Return a detector that looks for engines at these ports only."""
    clock = SystemClock()
    env = {LOCATORS[engine].variable: f"{port}" for engine, port in ports.items()}
    variables = {locator.variable: name for name, locator in LOCATORS.items()}
    return Detector(
        BUILT_IN.values(),
        session,
        clock,
        MemoryCache(clock, 300),
        EngineSettings(health_latency_threshold_ms=threshold_ms, max_network_failures=failures),
        env,
        lambda: owners or {},
        lambda locator, _: "/bin/x" if variables[locator.variable] in installed else None,
        timeout,
    )


@contextmanager
def machine(conditions: Mapping[str, str], delay: float = 0.2) -> Iterator[dict[str, int]]:
    """Run a machine on which each engine is in a condition; yield the ports."""
    others = dict(zip(ENGINES, islice(cycle(ENGINES), 1, None), strict=False))
    with ExitStack() as stack:
        ports = {}
        for engine, condition in conditions.items():
            if condition in (ABSENT, INSTALLED):
                ports[engine] = stack.enter_context(closed_port())
            elif condition == OTHER:
                ports[engine] = stack.enter_context(recorded_engine(others[engine]))
            else:
                ports[engine] = stack.enter_context(recorded_engine(engine, Mood(condition), delay=delay))
        yield ports


def expected(conditions: Mapping[str, str]) -> dict[str, EngineState]:
    fixed = {ABSENT: S.ABSENT, INSTALLED: S.INSTALLED_ONLY, OTHER: S.ERROR_API}
    return {engine: fixed.get(one) or STATES[Mood(one)] for engine, one in conditions.items()}


def states(detections: Sequence[Detection]) -> dict[str, EngineState]:
    return {one.engine: one.state for one in detections}


async def alone(session: aiohttp.ClientSession, engine: str, mood: Mood) -> Detection:
    """Look at one engine in a mood."""
    with recorded_engine(engine, mood) as port:
        (found,) = await look(session, {engine: port}).detect(engine)
    return found


async def test_with_nothing_running_all_four_are_known_to_be_absent_within_two_seconds(
    session: aiohttp.ClientSession,
) -> None:
    conditions = dict.fromkeys(ENGINES, ABSENT)
    with machine(conditions) as ports:
        began = time.monotonic()
        found = await look(session, ports, threshold_ms=1500, failures=3).detect()

    assert time.monotonic() - began < 2
    assert states(found) == expected(conditions)


@pytest.mark.parametrize("condition", CONDITIONS)
async def test_every_engine_in_a_condition_is_in_its_state_three_times_over(
    session: aiohttp.ClientSession, condition: str
) -> None:
    conditions = dict.fromkeys(ENGINES, condition)
    limits = {
        Mood.SLOW: {"threshold_ms": 50},
        Mood.SILENT: {"timeout": 0.2, "failures": 2},
    }.get(Mood(condition) if condition in list(Mood) else Mood.HEALTHY, {})
    installed = frozenset(ENGINES if condition == INSTALLED else ())
    with machine(conditions) as ports:
        detector = look(session, ports, installed=installed, **limits)  # type: ignore[arg-type]
        runs = [await detector.detect(fresh=True) for _ in range(3)]

    assert [states(run) for run in runs] == [expected(conditions)] * 3


def samples() -> list[tuple[str, ...]]:
    """Return combinations in which every engine meets every condition once, among ever different ones."""
    count = len(CONDITIONS)
    columns = [[CONDITIONS[factor * i % count] for i in range(count)] for factor in (1, 5, 7, 11)]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("batch", range(3))
async def test_engines_do_not_get_in_each_others_way(session: aiohttp.ClientSession, batch: int) -> None:
    combinations = [dict(zip(ENGINES, one, strict=True)) for one in samples()[batch::3]]

    async def run(conditions: dict[str, str]) -> list[dict[str, EngineState]]:
        installed = frozenset(engine for engine, one in conditions.items() if one == INSTALLED)
        with machine(conditions, delay=1.1) as ports:
            three = [
                look(session, ports, threshold_ms=1000, timeout=2, installed=installed).detect()
                for _ in range(3)
            ]
            return [states(found) for found in await asyncio.gather(*three)]

    came = await asyncio.gather(*(run(conditions) for conditions in combinations))

    for conditions, runs in zip(combinations, came, strict=True):
        assert runs == [expected(conditions)] * 3


async def test_a_healthy_engine_tells_its_version_models_and_latency(session: aiohttp.ClientSession) -> None:
    found = await alone(session, "vllm", Mood.HEALTHY)

    assert (found.title, found.version, found.models) == ("vLLM", "0.32.0", ("tiny",))
    assert found.detail == "lists 1 model"
    assert found.latency_ms is not None
    assert found.latency_ms > 0
    assert found.address.startswith("http://127.0.0.1:")


async def test_an_engine_without_models_is_healthy(session: aiohttp.ClientSession) -> None:
    found = await alone(session, "ollama", Mood.EMPTY)

    assert (found.state, found.models, found.detail) == (S.RUNNING_HEALTHY, (), "lists 0 models")


async def test_a_loading_engine_says_so(session: aiohttp.ClientSession) -> None:
    found = await alone(session, "llamacpp", Mood.LOADING)

    assert (found.state, found.detail) == (S.RUNNING_DEGRADED, "503: loading model")


async def test_the_wrong_engine_is_named_and_nothing_of_it_is_taken(session: aiohttp.ClientSession) -> None:
    with recorded_engine("llamacpp") as port:
        (found,) = await look(session, {"vllm": port}).detect("vllm")

    assert (found.state, found.detail) == (S.ERROR_API, "llama.cpp answers there, not vLLM")
    assert (found.models, found.version) == ((), None)


async def test_a_silent_engine_is_asked_again_before_it_counts_as_unreachable(
    session: aiohttp.ClientSession,
) -> None:
    with recorded_engine("ollama", Mood.SILENT) as port:
        (found,) = await look(session, {"ollama": port}, timeout=0.1, failures=3).detect("ollama")

    assert (found.state, found.detail) == (S.ERROR_NETWORK, "no answer within 0.1 s (3 tries)")


class OpensMeanwhile(SystemClock):
    """While the detector waits to ask again, an engine begins to answer."""

    def __init__(self, stack: ExitStack, port: int) -> None:
        self._stack = stack
        self._port = port

    async def sleep(self, seconds: float) -> None:
        """Replace what hangs up by what answers."""
        self._stack.close()
        self._stack.enter_context(recorded_engine("ollama", port=self._port))


async def test_an_engine_that_answers_at_the_second_try_is_healthy(session: aiohttp.ClientSession) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(recorded_engine("ollama", Mood.HANGS_UP))
        clock = OpensMeanwhile(stack, port)
        settings = EngineSettings(health_latency_threshold_ms=5000)
        env = {"OLLAMA_HOST": f"127.0.0.1:{port}"}
        (found,) = await Detector(
            BUILT_IN.values(), session, clock, MemoryCache(clock, 300), settings, env
        ).detect("ollama")

    assert found.state is S.RUNNING_HEALTHY


async def test_what_the_proxy_runs_itself_is_left_alone(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        ours.settimeout(0)
        port = ours.getsockname()[1]
        owners = {socket_address("localhost", port): "service 'llama3'"}
        (found,) = await look(session, {"llamacpp": port}, owners=owners).detect("llamacpp")

        with pytest.raises(BlockingIOError):
            ours.accept()
    assert (found.state, found.detail) == (S.ABSENT, "service 'llama3' is at that address")


async def test_what_is_known_is_not_asked_again_but_when_that_is_wanted(
    session: aiohttp.ClientSession,
) -> None:
    with recorded_engine("ollama") as port:
        detector = look(session, {"ollama": port})
        (first,) = await detector.detect("ollama")
        known = [await detector.detect("ollama") for _ in range(2)]
    (fresh,) = await detector.detect("ollama", fresh=True)

    assert known == [[first], [first]]
    assert (first.state, fresh.state) == (S.RUNNING_HEALTHY, S.ABSENT)


async def test_an_engine_that_is_to_be_forgotten_is_asked_again(session: aiohttp.ClientSession) -> None:
    with recorded_engine("ollama") as port:
        detector = look(session, {"ollama": port})
        await detector.detect("ollama")
    await detector.forget("ollama")
    await detector.forget("no such engine")
    (found,) = await detector.detect("ollama")

    assert found.state is S.ABSENT


async def test_an_engine_that_nobody_looks_for_is_unknown(session: aiohttp.ClientSession) -> None:
    with pytest.raises(UnknownEngineError, match="there is no engine 'sglang'"):
        await look(session, {}).detect("sglang")


async def test_a_redirect_is_not_followed_to_another_host(session: aiohttp.ClientSession) -> None:
    visited: list[str] = []

    async def lead_away(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{trap_port}/"})

    async def trap(request: web.Request) -> web.Response:
        visited.append(request.path)
        return web.Response()

    async with serving(trap) as trap_port, serving(lead_away) as port:
        (found,) = await look(session, {"ollama": port}).detect("ollama")

    assert (found.state, found.detail) == (S.ERROR_API, "what answers there is not Ollama")
    assert visited == []


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[int]:
    """Answer every path by one handler; yield the port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield int(runner.addresses[0][1])
    await runner.cleanup()
