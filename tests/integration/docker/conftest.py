import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.conftest import IMAGE
from tests.rigs.docker_engine import DockerEngine

from ai_proxy.core.service import DockerLaunch, Handle, ResourceUsage, Service
from ai_proxy.core.settings import DockerSettings
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.docker.runtime import DockerRuntime

type Open = Callable[..., DockerRuntime]


def backend(script: str, name: str = "backend", config_hash: str = "1", **launch: Any) -> Service:
    """Return a service whose container runs a Python script."""
    declared = {"image": IMAGE, "port": 8080, "command": ("python3", "-u", "-c", script), "pull": "never"}
    container = DockerLaunch(**{**declared, **launch})
    return Service(name, "generic", "generic", container, config_hash, stop_grace=1.0)


def sleeper(name: str = "backend", **launch: Any) -> Service:
    return backend("import time; print('hello'); time.sleep(600)", name, **launch)


async def eventually[T](look: Callable[[], T | None]) -> T:
    """Return the first thing other than None that a look brings."""
    async with asyncio.timeout(60.0):
        while (found := look()) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def measured(
    runtime: DockerRuntime, handle: Handle, wanted: Callable[[ResourceUsage], bool] = lambda _: True
) -> ResourceUsage:
    """Return the first report of what it uses that is as wanted."""
    async with asyncio.timeout(60.0), aclosing(runtime.watch(handle)) as reports:
        async for report in reports:
            if isinstance(report, ResourceUsage) and wanted(report):
                return report
    raise AssertionError(f"no such report of {handle}")


async def log_line(runtime: DockerRuntime, name: str, part: str) -> str:
    """Wait for a line of a service's log."""
    ring = runtime.logs(name)
    return await eventually(lambda: next((x.text for x in ring.tail(5000) if part in x.text), None))


@pytest.fixture
def engine(docker_engine: DockerEngine) -> Iterator[DockerEngine]:
    """The private engine; a test must leave nothing on it."""
    yield docker_engine
    deadline = time.monotonic() + 20.0  # a removal may be under way
    while (left := docker_engine.containers()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        docker_engine.docker("rm", "--force", *left)
    assert left == []


@pytest.fixture
async def open_runtime(engine: DockerEngine) -> AsyncIterator[Open]:
    """Opens runtimes, by default all of one owner; ends whatever they leave running."""
    here = DockerSettings(engine.host)
    opened: list[DockerRuntime] = []
    background = Background()

    def make(owner: str = "tests", settings: DockerSettings = here, **options: Any) -> DockerRuntime:
        opened.append(DockerRuntime(settings, owner, "test", background, **options))
        return opened[-1]

    yield make
    try:
        for runtime in opened:
            for handle in await runtime.handles():
                await runtime.stop(handle, 0.0)
    finally:
        for runtime in opened:
            await runtime.aclose()
        await background.close()
    assert background.restarts == {}


@pytest.fixture
def runtime(open_runtime: Open) -> DockerRuntime:
    return open_runtime()
