"""The suites run on asyncio's own loop; production runs on uvloop."""

import asyncio
from pathlib import Path

import uvloop

from ai_proxy.core.service import Exit, ProcessLaunch, Service
from ai_proxy.runtimes.process import ProcessRuntime
from ai_proxy.testing.fake_engine import Behaviour, fake_engine_command


async def live(runtime: ProcessRuntime, behaviour: Behaviour) -> Exit:
    """Run a service to its first words, then until it is stopped or ends."""
    launch = ProcessLaunch(fake_engine_command(behaviour))
    handle = await runtime.start(Service("svc", "generic", "generic", launch, config_hash="1"))
    ended = asyncio.gather(runtime.wait(handle))
    spoken = asyncio.Event()
    runtime.logs("svc").watch(lambda _: spoken.set())
    async with asyncio.timeout(10.0):
        await spoken.wait()
        await runtime.stop(handle, grace=0.3)
        (end,) = await ended
    assert list(await runtime.handles()) == []
    return end


def test_processes_are_run_read_and_ended_on_uvloop(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runtime = ProcessRuntime(tmp_path, owner=str(tmp_path))
        assert runner.run(live(runtime, Behaviour.OK)).code in (0, -15)
        assert runner.run(live(runtime, Behaviour.EXIT_AT_ONCE)).code == 3
        assert runner.run(live(runtime, Behaviour.FLOOD_LOG)).code in (0, -15)
        assert runner.run(live(runtime, Behaviour.CHILDREN)).code in (0, -15)
