"""What a container is told, and what becomes of it."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from tests.conftest import IMAGE
from tests.integration.docker.conftest import Open, backend, eventually, log_line, measured, sleeper
from tests.rigs.docker_engine import DockerEngine, free_port

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.service import DockerLaunch, Exit, Handle, Healthcheck, Mount, Service
from ai_proxy.core.settings import MB, DockerSettings
from ai_proxy.data import DEMO_SENTENCE, demo_model_path
from ai_proxy.platform import tasks
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.docker.access import find_own_container, own_container
from ai_proxy.runtimes.docker.runtime import DockerRuntime
from ai_proxy.testing.contracts import exit_of, start


def llamacpp() -> Service:
    launch = DockerLaunch(
        IMAGE,
        8080,
        args=("-m", "/models/recite.gguf", "--port", "8080", "-c", "512", "-t", "1"),
        mounts=(Mount(str(demo_model_path().parent), "/models", read_only=True),),
        read_only=True,
        cap_drop=("ALL",),
        user="1000:1000",
        memory_mb=512,
        cpus=1.0,
        pids=100,
        shm_size_mb=16,
        pull="never",
    )
    return Service("llama3", "llama-cpp-server", "llamacpp", launch, config_hash="1")


async def recite(url: str) -> str:
    """Ask for the demo sentence, once the model is loaded."""
    body = {"messages": [{"role": "user", "content": "Tell me."}], "temperature": 0}
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            try:
                async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                    if response.status == 200:
                        return str((await response.json())["choices"][0]["message"]["content"])
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


def published_port(engine: DockerEngine, name: str, port: str = "8080/tcp") -> int:
    facts: Any = engine.inspect(name)
    (binding,) = facts["NetworkSettings"]["Ports"][port]
    assert binding["HostIp"] == "127.0.0.1"
    return int(binding["HostPort"])


async def test_the_real_llamacpp_answers_from_a_locked_down_container(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    handle = await start(runtime, llamacpp())
    assert await recite(handle.upstreams[0].url) == DEMO_SENTENCE
    port = published_port(engine, "ai-proxy-llama3")
    assert await recite(f"http://127.0.0.1:{port}") == DEMO_SENTENCE


async def test_a_container_is_made_as_declared(engine: DockerEngine, runtime: DockerRuntime) -> None:
    await start(runtime, llamacpp())
    facts: Any = engine.inspect("ai-proxy-llama3")
    host = facts["HostConfig"]
    assert (host["Init"], host["ReadonlyRootfs"], host["CapDrop"]) == (True, True, ["ALL"])
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (512 * MB, 10**9, 100)
    assert (host["ShmSize"], host["RestartPolicy"]["Name"]) == (16 * MB, "no")
    assert facts["Config"]["User"] == "1000:1000"
    assert facts["Mounts"][0]["RW"] is False
    assert {k: v for k, v in facts["Config"]["Labels"].items() if k.startswith("ai-proxy.")} == {
        "ai-proxy.owner": "tests",
        "ai-proxy.service": "llama3",
        "ai-proxy.config-hash": "1",
        "ai-proxy.version": "test",
        "ai-proxy.port": "8080",
        "ai-proxy.handle-version": "1",
    }


async def test_a_host_port_is_kept_to(engine: DockerEngine, runtime: DockerRuntime) -> None:
    port = free_port()
    await start(runtime, sleeper(host_port=port))
    assert published_port(engine, "ai-proxy-backend") == port


async def test_the_environment_reaches_the_program(runtime: DockerRuntime) -> None:
    await start(
        runtime, backend("import os; print(os.environ['WORD']); input()", env={"WORD": "open = sesame"})
    )
    await log_line(runtime, "backend", "open = sesame")


async def test_a_container_that_needs_more_memory_than_it_may_is_killed_and_says_so(
    runtime: DockerRuntime,
) -> None:
    handle = await start(runtime, backend("print('eating'); x = b'x' * 10**9", memory_mb=32))
    end = await exit_of(runtime, handle)
    assert (end.code, end.detail) == (137, "killed: out of memory (exit code 137)")


async def test_a_container_killed_from_outside_is_noticed(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    handle = await start(runtime, sleeper())
    engine.docker("kill", "ai-proxy-backend")
    end = await exit_of(runtime, handle)
    assert end.detail == "killed by SIGKILL (exit code 137)"


async def test_a_container_removed_from_outside_is_noticed(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    handle = await start(runtime, sleeper())
    engine.docker("rm", "--force", "ai-proxy-backend")
    assert (await exit_of(runtime, handle)).detail


async def test_a_paused_container_says_so_in_its_log_and_can_be_stopped(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    handle = await start(runtime, sleeper())
    engine.docker("pause", "ai-proxy-backend")
    await log_line(runtime, "backend", "paused from outside")
    assert list(await runtime.handles()) == [handle]
    await runtime.stop(handle, 1.0)
    assert engine.containers() == []


async def test_a_failing_health_check_of_docker_is_told_in_the_log(runtime: DockerRuntime) -> None:
    check = Healthcheck(("python3", "-c", "raise SystemExit(1)"), interval=0.1, timeout=5.0, retries=1)
    await start(runtime, sleeper(healthcheck=check))
    await log_line(runtime, "backend", "health check fails")


async def test_what_it_uses_is_measured_as_long_as_it_runs(runtime: DockerRuntime) -> None:
    script = "data = bytearray(b'x') * (40 << 20)\nwhile True: sum(data[:100000])"
    handle = await start(runtime, backend(script, memory_mb=256, cpus=0.5))
    stats = await measured(runtime, handle, lambda usage: bool(usage.cpu_percent))
    assert 40 * MB <= stats.memory_rss <= stats.memory <= stats.memory_limit == 256 * MB
    assert 10.0 <= (stats.cpu_percent or 0.0) <= 100.0
    assert stats.pids >= 2
    await runtime.stop(handle, 0.0)
    assert [type(report) async for report in runtime.watch(handle)] == [Exit]


async def test_the_next_proxy_adopts_it_with_its_log_and_without_a_restart(
    engine: DockerEngine, open_runtime: Open
) -> None:
    first = open_runtime()
    handle = await start(first, llamacpp())
    await recite(handle.upstreams[0].url)
    await first.aclose()
    second = open_runtime()
    (adopted,) = await second.handles()
    waiting = tasks.spawn(exit_of(second, adopted), "wait")
    assert await recite(adopted.upstreams[0].url) == DEMO_SENTENCE
    line = await log_line(second, "llama3", "listening")
    assert [x.text for x in second.logs("llama3").tail(5000)].count(line) == 1
    assert adopted == handle
    await tasks.cancel(waiting)


async def test_a_start_finds_what_runs_already_as_declared(open_runtime: Open) -> None:
    running = await start(open_runtime(), sleeper())
    assert await start(open_runtime(), sleeper()) == running


async def test_a_start_replaces_what_runs_otherwise_than_declared(
    engine: DockerEngine, open_runtime: Open
) -> None:
    former = await start(open_runtime(), sleeper())
    handle = await start(open_runtime(), replace(sleeper(), config_hash="2"))
    assert (handle.config_hash, handle.ref == former.ref) == ("2", False)
    assert engine.containers() == ["ai-proxy-backend"]


def leave_behind(engine: DockerEngine, owner: str, name: str = "ai-proxy-backend") -> None:
    """Create a container as a start does whose answer was lost."""
    labels = {"owner": owner, "service": "backend", "config-hash": "1", "port": "8080"}
    words = [word for key, value in labels.items() for word in ("--label", f"ai-proxy.{key}={value}")]
    engine.docker("create", "--name", name, *words, IMAGE)


async def test_what_was_created_and_never_ran_is_listed_adopted_by_nobody_and_swept(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    leave_behind(engine, "tests")
    (handle,) = await runtime.handles()
    assert (handle.service_id, handle.config_hash) == ("backend", "")
    await runtime.stop(handle, 5.0)
    assert engine.containers() == []


async def test_a_start_removes_what_was_created_and_never_ran(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    leave_behind(engine, "tests")
    handle = await start(runtime, sleeper())
    assert list(await runtime.handles()) == [handle]


async def test_two_proxies_leave_each_others_containers_alone(
    engine: DockerEngine, open_runtime: Open
) -> None:
    mine, yours = open_runtime("mine"), open_runtime("yours")
    my_handle, your_handle = await start(mine, sleeper("one")), await start(yours, sleeper("two"))
    assert list(await mine.handles()) == [my_handle]
    assert list(await yours.handles()) == [your_handle]


async def test_a_cancelled_start_is_listed_when_it_came_to_something(
    engine: DockerEngine, runtime: DockerRuntime
) -> None:
    starting = tasks.spawn(start(runtime, sleeper()), "start")
    await eventually(lambda: engine.containers() or None)
    await tasks.cancel(starting)
    (handle,) = await runtime.handles()
    assert handle.service_id == "backend"


@pytest.fixture
def network(engine: DockerEngine) -> Iterator[str]:
    engine.docker("network", "create", "models")
    yield "models"
    engine.docker("network", "rm", "models")


SERVES = "import http.server as h; h.HTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"


async def answers(handle: Handle) -> bool:
    upstream = handle.upstreams[0]
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection(upstream.host, upstream.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return True


async def test_it_joins_its_networks_and_can_be_reached(
    engine: DockerEngine, network: str, open_runtime: Open
) -> None:
    runtime = open_runtime()
    handle = await start(runtime, backend(SERVES, networks=("bridge", network)))
    facts: Any = engine.inspect("ai-proxy-backend")
    assert set(facts["NetworkSettings"]["Networks"]) == {"bridge", network}
    assert await answers(handle)
    await runtime.stop(handle, 0.0)


async def test_a_process_in_a_container_finds_out_in_which(runtime: DockerRuntime) -> None:
    script = "from pathlib import Path; print(Path('/proc/self/mountinfo').read_text())"
    handle = await start(runtime, backend(script))
    await exit_of(runtime, handle)
    mounts = "\n".join(line.text for line in runtime.logs("backend").tail(500))
    assert find_own_container(mounts) == handle.ref
    assert own_container() is None


async def test_a_proxy_in_a_container_reaches_its_siblings_in_its_own_network(
    engine: DockerEngine, network: str, open_runtime: Open
) -> None:
    proxy = await start(open_runtime("outside"), sleeper("proxy", networks=(network,)))
    inside = open_runtime("inside", container=proxy.ref[:12])
    handle = await start(inside, backend(SERVES))
    facts: Any = engine.inspect("ai-proxy-backend")
    assert facts["HostConfig"]["PortBindings"] == {}
    assert handle.upstreams[0].host == facts["NetworkSettings"]["Networks"][network]["IPAddress"]
    assert handle.upstreams[0].port == 8080
    assert await answers(handle)
    for runtime in (inside, open_runtime("outside")):
        for each in await runtime.handles():
            await runtime.stop(each, 0.0)


async def test_siblings_join_the_network_that_is_configured(
    engine: DockerEngine, network: str, open_runtime: Open
) -> None:
    outside = open_runtime("outside")
    proxy = await start(outside, sleeper("proxy", networks=("bridge", network)))
    inside = open_runtime("inside", DockerSettings(engine.host, network=network), container=proxy.ref[:12])
    handle = await start(inside, backend(SERVES))
    facts: Any = engine.inspect("ai-proxy-backend")
    assert set(facts["NetworkSettings"]["Networks"]) == {network}
    assert await answers(handle)
    await inside.stop(handle, 0.0)
    await outside.stop(proxy, 0.0)


async def test_a_network_that_the_proxy_is_not_in_is_told(engine: DockerEngine, open_runtime: Open) -> None:
    proxy = await start(open_runtime("outside"), sleeper("proxy"))
    inside = DockerRuntime(
        DockerSettings(engine.host, network="models"), "inside", "test", Background(), container=proxy.ref
    )
    with pytest.raises(RuntimeFailureError, match="is not in network models: connect it, or correct"):
        await start(inside, sleeper())
    await inside.aclose()
