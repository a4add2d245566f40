"""The suites run on asyncio's own loop; production runs on uvloop."""

import asyncio
from pathlib import Path

import uvloop

from ai_proxy.core.service import Exit, ProcessLaunch, Service
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.process.runtime import ProcessRuntime
from ai_proxy.testing.contracts import exit_of, start
from ai_proxy.testing.fake_engine import Behaviour, fake_engine_command


async def live(runtime: ProcessRuntime, behaviour: Behaviour, *, stop: bool = True) -> Exit:
    """Run a service until it listens and is stopped, or ends by itself."""
    launch = ProcessLaunch(fake_engine_command(behaviour))
    handle = await start(runtime, Service("svc", "generic", "generic", launch, config_hash="1"))
    listening = asyncio.Event()
    runtime.logs("svc").watch(lambda line: listening.set() if "listening" in line.text else None)
    async with asyncio.timeout(60):
        if stop:
            await listening.wait()
            await runtime.stop(handle, grace=5.0)
        end = await exit_of(runtime, handle)
    assert list(await runtime.handles()) == []
    return end


def test_processes_are_run_read_and_ended_on_uvloop(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runtime = ProcessRuntime(tmp_path, owner=str(tmp_path), background=Background())
        assert runner.run(live(runtime, Behaviour.OK)).code == -15
        assert runner.run(live(runtime, Behaviour.CHILDREN)).code == -15
        assert runner.run(live(runtime, Behaviour.EXIT_AT_ONCE, stop=False)).code == 3
