from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import ProcessLaunch, Service
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.process.runtime import ProcessRuntime
from ai_proxy.testing.contracts import OwningRuntimeContract, Play, Stage

COMMANDS = {
    Play.RUNS: ("sh", "-c", "echo hello; exec sleep 60"),
    Play.EXITS: ("sh", "-c", "echo cannot go on; exit 3"),
    Play.STUBBORN: ("sh", "-c", "trap '' TERM; echo hello; while :; do sleep 1; done"),
    Play.FLOODS: ("yes", "flood" * 2000),
    Play.CANNOT_START: ("no-such-program",),
}


class ProcessStage(Stage):
    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.runtimes: list[ProcessRuntime] = []
        self.runtime = self.reopen()

    def service(self, play: Play) -> Service:
        return Service(play, "generic", "generic", ProcessLaunch(COMMANDS[play]), config_hash="1")

    def reopen(self) -> Runtime:
        self.runtimes.append(
            ProcessRuntime(self.state_dir, owner=str(self.state_dir), background=Background())
        )
        return self.runtimes[-1]

    async def clear(self) -> None:
        for handle in await self.runtime.handles():
            await self.runtime.stop(handle, 0.0)
        for runtime in self.runtimes:
            await runtime.aclose()


class TestProcessRuntime(OwningRuntimeContract):
    @pytest.fixture
    async def stage(self, tmp_path: Path) -> AsyncIterator[Stage]:
        stage = ProcessStage(tmp_path / "processes")
        yield stage
        await stage.clear()
