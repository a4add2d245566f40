"""A Docker engine that answers what its documentation does not have, played by a server on a Unix socket."""

import asyncio
import itertools
import json
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.placement import Placement
from ai_proxy.core.service import DockerLaunch, Exit, Handle, ResourceUsage, Service
from ai_proxy.core.settings import DockerSettings
from ai_proxy.platform import tasks
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.docker.runtime import DockerRuntime
from ai_proxy.testing.contracts import exit_of, start

INSPECTED = {
    "Id": "c1",
    "Config": {"Labels": {"ai-proxy.owner": "me", "ai-proxy.service": "llama3", "ai-proxy.port": "8080"}},
    "State": {"StartedAt": "2025-01-01T00:00:00Z", "Running": True, "Status": "running"},
    "NetworkSettings": {"Networks": {}, "Ports": {"8080/tcp": [{"HostPort": "32768"}]}},
}
HANDLE = Handle("llama3", "1", "c1", 1735689600.0, ())
USED = b'{"memory_stats":{"usage":10,"limit":100}}'
OOM = b'{"Action":"oom","timeNano":%d,"Actor":{"Attributes":{"ai-proxy.service":"llama3"}}}'
FAR = 4_000_000_000 * 10**9
"""A moment after all others, in nanoseconds."""

type Play = Callable[[], AsyncIterator[bytes]]


class Engine:
    """Answers each path with the next of the answers that a test gave it, then with silence.

    Attributes:
        answers: By the end of the path: bodies, or streams of several pieces.
        asked: Ends of paths, in order.
        bodies: Of the last request, by the end of its path.
        gates: What answers wait for, by the end of the path.
        refused: Ends of paths that are answered with an error.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Iterator[bytes | tuple[bytes, ...]]] = {}
        self.asked: list[str] = []
        self.bodies: dict[str, bytes] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.refused: set[str] = set()

    def give(self, path: str, *answers: bytes | tuple[bytes, ...]) -> None:
        """Answer a path with these, in order; a tuple is a stream that goes on in silence."""
        self.answers[path] = iter(answers)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.rpartition("/")[2]
        self.bodies[path] = await request.read()
        self.asked.append(path)
        if path in self.refused:
            return web.json_response({"message": "no such filter"}, status=400)
        if path == "_ping" or request.method == "DELETE":
            return web.Response(text="OK", headers={"Api-Version": "1.41"})
        if path in self.gates:
            await self.gates[path].wait()
        answer = next(self.answers.get(path, iter(())), ())
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="application/json")
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in answer:
            await response.write(piece)
        await asyncio.Event().wait()
        return response


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine()
    engine.give("json", *itertools.repeat(json.dumps(INSPECTED).encode(), 100))
    engine.give("logs", *itertools.repeat(b"", 100))
    runner = web.ServerRunner(web.Server(engine), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "docker.sock")).start()
    yield engine
    await runner.cleanup()


class Waits:
    """The back-off of a `Background`: as long as it is asked for, without waiting that long."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    background = Background(sleep=Waits())
    yield background
    await background.close()


@pytest.fixture
async def runtime(engine: Engine, background: Background, tmp_path: Path) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(DockerSettings(f"unix://{tmp_path}/docker.sock"), "me", "1.0", background)
    yield runtime
    await runtime.aclose()


async def lines(runtime: DockerRuntime, count: int) -> list[str]:
    """Return a service's log once it has that many lines."""
    ring, written = runtime.logs("llama3"), asyncio.Event()
    stop = ring.watch(lambda _: written.set())
    async with asyncio.timeout(5.0):
        while len(ring.tail(count)) < count:
            written.clear()
            await written.wait()
    stop()
    return [line.text for line in ring.tail(count)]


@pytest.mark.parametrize("surprise", [b'{"Error":null}', b"<html>", b"[]", b'{"StatusCode":"three"}'])
async def test_an_answer_about_an_exit_that_nobody_can_read_is_asked_for_again(
    engine: Engine, background: Background, runtime: DockerRuntime, surprise: bytes
) -> None:
    engine.give("wait", surprise, surprise, b'{"StatusCode":3}')

    assert await exit_of(runtime, HANDLE) == Exit(3, "exit code 3")

    restarts = background.restarts["docker containers"]
    assert restarts.count == 2
    assert "Docker's answer to /containers/c1/wait is not as documented" in restarts.error


async def test_events_after_a_line_that_nobody_can_read_are_heard(
    engine: Engine, background: Background, runtime: DockerRuntime
) -> None:
    surprises = b'<html>\n{"Action":7}\n{"timeNano":"now"}\n[]\n'
    engine.give("events", (surprises + OOM % FAR + b"\n",))

    runtime.watch(HANDLE)

    (line,) = await lines(runtime, 1)
    assert "out of memory" in line
    assert background.restarts == {}


async def test_events_are_followed_again_after_a_line_that_is_too_long(
    engine: Engine, background: Background, runtime: DockerRuntime
) -> None:
    engine.give("events", (b"x" * 2_000_000,), (OOM % FAR + b"\n",))

    runtime.watch(HANDLE)

    (line,) = await lines(runtime, 1)
    assert "out of memory" in line
    assert background.restarts["docker events"].count == 1


async def test_an_engine_without_events_is_no_failure(
    engine: Engine, background: Background, runtime: DockerRuntime
) -> None:
    engine.refused.add("events")

    runtime.watch(HANDLE)
    async with asyncio.timeout(5.0):
        while engine.asked.count("events") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert background.restarts == {}


async def test_reports_after_one_that_nobody_can_read_are_taken(
    engine: Engine, background: Background, runtime: DockerRuntime
) -> None:
    surprises = b'{"memory_stats":{"usage":"much"}}\nnull\n{"networks":{"eth0":{"rx_packets":1}}}\n'
    engine.give("stats", (surprises + USED + b"\n",))

    async with asyncio.timeout(5.0), aclosing(runtime.watch(HANDLE)) as reports:
        usage = await anext(reports)

    assert isinstance(usage, ResourceUsage)
    assert (usage.memory, usage.memory_limit) == (10, 100)
    assert background.restarts == {}


async def test_a_log_that_is_none_is_followed_again(
    engine: Engine, background: Background, runtime: DockerRuntime
) -> None:
    text = b"2025-01-01T00:00:00.5Z hello\n"
    engine.give("logs", (b"<html>not frames</html>",), (struct.pack(">BxxxL", 1, len(text)) + text,))

    runtime.watch(HANDLE)

    assert await lines(runtime, 1) == ["hello"]
    assert background.restarts["docker logs"].count == 1


async def test_a_container_that_is_followed_again_repeats_no_line(
    engine: Engine, background: Background, runtime: DockerRuntime
) -> None:
    text = b"2025-01-01T00:00:00.5Z hello\n"
    engine.give("logs", *itertools.repeat(struct.pack(">BxxxL", 1, len(text)) + text, 100))
    engine.give("wait", b"<html>", b'{"StatusCode":0}')
    engine.gates["wait"] = asyncio.Event()
    watching = tasks.spawn(exit_of(runtime, HANDLE), "watch")
    await lines(runtime, 1)

    engine.gates["wait"].set()
    await watching

    assert background.restarts["docker containers"].count == 1
    assert [line.text for line in runtime.logs("llama3").tail(10)] == ["hello"]


SURPRISES = [b"<html>", b"7", b'[{"Id":7}]', b'[{"ID":"c1"}]', b"\xff", b"[" * 10_000]


@pytest.mark.parametrize("surprise", SURPRISES)
async def test_calls_that_get_what_nobody_can_read_fail_with_the_reason(
    engine: Engine, runtime: DockerRuntime, surprise: bytes
) -> None:
    engine.give("json", *itertools.repeat(surprise, 100))
    engine.give("info", *itertools.repeat(surprise, 100))
    service = Service("llama3", "generic", "generic", DockerLaunch("image", 8080, pull="never"), "1")

    calls: list[Any] = [runtime.handles, lambda: start(runtime, service)]
    for call in calls:
        with pytest.raises(RuntimeFailureError, match=r"is not as documented .*: check the engine"):
            await call()


async def test_a_stop_while_the_exit_cannot_be_read_looks_whether_it_runs(
    engine: Engine, runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ai_proxy.runtimes.docker.runtime.STOP_SLACK", 0.2)
    engine.give("wait", *itertools.repeat(b"{}", 10_000))
    engine.give("stop", b"")

    with pytest.raises(RuntimeFailureError, match="does not end even by SIGKILL"):
        await runtime.stop(HANDLE, 0.0)


async def test_a_container_gets_the_gpus_that_the_scheduler_chose(
    engine: Engine, runtime: DockerRuntime
) -> None:
    stranger = json.dumps(INSPECTED | {"Config": {"Labels": {"ai-proxy.owner": "me"}}}).encode()
    engine.give("json", b"{}", stranger, json.dumps(INSPECTED).encode())
    engine.give("info", b"{}")
    engine.give("stop", b"")
    engine.give("create", b'{"Id":"c1"}')
    engine.give("start", b"")
    service = Service("llama3", "generic", "generic", DockerLaunch("image", 8080, gpus=("all",)), "1")

    await runtime.start(service, Placement(devices=("0", "GPU-1b2c")), lambda _: None)

    (request,) = json.loads(engine.bodies["create"])["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == ["0", "GPU-1b2c"]
