"""GPU memory of containers: the engine tells the processes, the driver what they hold."""

from collections.abc import Collection

from tests.integration.docker.conftest import Open, measured, sleeper
from tests.rigs.docker_engine import DockerEngine

from ai_proxy.testing.contracts import start

GIB = 2**30


async def test_the_driver_is_asked_for_the_processes_of_the_container(
    engine: DockerEngine, open_runtime: Open
) -> None:
    asked: list[Collection[int]] = []

    def gpu_memory(pids: Collection[int]) -> int:
        asked.append(pids)
        return 3 * GIB

    runtime = open_runtime(gpu_memory=gpu_memory)
    handle = await start(runtime, sleeper())

    stats = await measured(runtime, handle)

    state = engine.inspect(handle.ref)["State"]
    assert isinstance(state, dict)
    assert stats.gpu_memory == 3 * GIB
    assert state["Pid"] in asked[0]
    assert all(pid > 0 for pid in asked[0])


async def test_without_a_driver_it_is_not_known(open_runtime: Open) -> None:
    runtime = open_runtime()

    stats = await measured(runtime, await start(runtime, sleeper()))

    assert stats.gpu_memory is None
