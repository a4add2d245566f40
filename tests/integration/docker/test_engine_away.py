"""The engine hangs, dies and comes back."""

import asyncio
import time

import pytest
from tests.integration.docker.conftest import Open, backend, eventually, log_line, sleeper
from tests.rigs.docker_engine import DockerEngine

from ai_proxy.core.errors import RuntimeUnavailableError
from ai_proxy.platform import tasks
from ai_proxy.runtimes.docker.runtime import DockerRuntime
from ai_proxy.testing.contracts import exit_of, start
from ai_proxy.testing.fakes import settle

COUNTS = """
import http.server as h, threading, time
server = h.HTTPServer(('', 8080), h.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for number in range(10_000):
    print('line', number)
    time.sleep(0.02)
"""


async def test_a_hanging_engine_is_reported_quickly_and_waited_for(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    handle = await start(runtime, sleeper())
    waiting = tasks.spawn(exit_of(runtime, handle), "wait")
    with engine.frozen():
        began = time.monotonic()
        calls = (runtime.handles(), runtime.stop(handle, 5.0), start(runtime, sleeper("other")))
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, RuntimeUnavailableError)
            assert "does not answer in time" in answer.detail
        assert time.monotonic() - began < 5.0
    assert not waiting.done()
    await runtime.stop(handle, 5.0)
    assert (await waiting).detail


async def test_containers_that_outlive_the_engine_are_served_on_and_watched_again(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    engine.stop()
    engine.start("--live-restore")
    handle = await start(runtime, backend(COUNTS))
    await log_line(runtime, "backend", "line 5")
    waiting = tasks.spawn(exit_of(runtime, handle), "wait")
    engine.kill()
    with pytest.raises(RuntimeUnavailableError, match="is away"):
        await runtime.handles()
    _, writer = await asyncio.open_connection(handle.upstreams[0].host, handle.upstreams[0].port)
    writer.close()
    engine.start("--live-restore")
    assert list(await runtime.handles()) == [handle]
    newest = runtime.logs("backend").tail(1)[0].text
    await log_line(runtime, "backend", f"line {int(newest.split()[1]) + 100}")
    lines = [line.text for line in runtime.logs("backend").tail(5000) if line.text.startswith("line")]
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert not waiting.done()
    engine.docker("kill", "ai-proxy-backend")
    assert (await waiting).detail == "killed by SIGKILL (exit code 137)"
    engine.stop()
    engine.start()


async def test_containers_that_die_with_the_engine_are_noticed_when_it_is_back(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    handle = await start(runtime, sleeper())
    waiting = tasks.spawn(exit_of(runtime, handle), "wait")
    await settle()
    engine.kill()
    assert not waiting.done()
    engine.start()
    assert (await waiting).detail
    assert list(await runtime.handles()) == []
    again = await start(runtime, sleeper())
    assert list(await runtime.handles()) == [again]


async def test_an_engine_that_starts_after_the_proxy_is_found(
    engine: DockerEngine, open_runtime: Open
) -> None:
    engine.stop()
    runtime = open_runtime()
    with pytest.raises(RuntimeUnavailableError, match="is away"):
        await start(runtime, sleeper())
    engine.start()
    assert (await start(runtime, sleeper())).upstreams


async def test_a_container_that_cannot_be_removed_now_is_removed_when_the_engine_is_back(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    handle = await start(runtime, backend("import time; time.sleep(0.5)"))
    await exit_of(runtime, handle)
    engine.kill()  # before anything else happens here, and so before the container is removed
    with pytest.raises(RuntimeUnavailableError):
        await runtime.handles()
    engine.start()
    await eventually(lambda: None if engine.containers() else True)
