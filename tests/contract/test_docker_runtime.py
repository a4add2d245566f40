import itertools
from collections.abc import AsyncIterator

import pytest
from tests.rigs.docker_engine import DockerEngine

from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import DockerLaunch, Service
from ai_proxy.core.settings import DockerSettings
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.docker.runtime import DockerRuntime
from ai_proxy.testing.contracts import OwningRuntimeContract, Play, Stage

PYTHON = ("python3", "-u", "-c")
SLEEP = "import time; time.sleep(60)"
COMMANDS = {
    Play.RUNS: (*PYTHON, f"print('hello'); {SLEEP}"),
    Play.EXITS: (*PYTHON, "import sys; print('cannot go on'); sys.exit(3)"),
    Play.STUBBORN: (*PYTHON, f"import signal; signal.signal(15, signal.SIG_IGN); print('hello'); {SLEEP}"),
    Play.FLOODS: (*PYTHON, "while True: print('flood' * 2000)"),
}

number = itertools.count()


class DockerStage(Stage):
    def __init__(self, engine: DockerEngine) -> None:
        self.host = engine.host
        self.owner = f"contract-{next(number)}"
        self.runtimes: list[DockerRuntime] = []
        self.runtime = self.reopen()

    def service(self, play: Play) -> Service:
        image = "ai-proxy/missing" if play is Play.CANNOT_START else "ai-proxy/test"
        launch = DockerLaunch(image, 8080, command=COMMANDS.get(play, ()), pull="never")
        return Service(play, "generic", "generic", launch, config_hash="1")

    def reopen(self) -> Runtime:
        self.runtimes.append(DockerRuntime(DockerSettings(self.host), self.owner, "test", Background()))
        return self.runtimes[-1]

    async def clear(self) -> None:
        for handle in await self.runtime.handles():
            await self.runtime.stop(handle, 0.0)
        for runtime in self.runtimes:
            await runtime.aclose()


class TestDockerRuntime(OwningRuntimeContract):
    @pytest.fixture
    async def stage(self, docker_engine: DockerEngine) -> AsyncIterator[Stage]:
        stage = DockerStage(docker_engine)
        yield stage
        await stage.clear()
