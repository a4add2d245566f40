import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import ProcessLaunch, Service
from ai_proxy.platform import tasks
from ai_proxy.testing.contracts import OwningRuntimeContract, Play, Stage
from ai_proxy.testing.fakes import Behaviour, FakeClock, FakeRuntime

BEHAVIOURS = {
    Play.EXITS: Behaviour.EXITS_AT_ONCE,
    Play.STUBBORN: Behaviour.IGNORES_STOP,
    Play.CANNOT_START: Behaviour.START_FAILS,
}


class FakeStage(Stage):
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.runtime: FakeRuntime = FakeRuntime(self.clock)

    def service(self, play: Play) -> Service:
        self.runtime.behave(play, BEHAVIOURS.get(play, Behaviour.NORMAL))
        return Service(play, "generic", "generic", ProcessLaunch(("fake",)), config_hash="1")

    def reopen(self) -> Runtime:
        return FakeRuntime(self.clock, self.runtime.machine)

    async def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        task = tasks.spawn(work, "work")
        await self.clock.advance(10.0)
        async with asyncio.timeout(60.0):
            return await task

    async def heard(self, service: Service) -> None:
        for number in range(5000):
            self.runtime.logs(service.id).append(f"line {number} " * 1000, at=self.clock.wall())


class TestFakeRuntime(OwningRuntimeContract):
    @pytest.fixture
    def stage(self) -> Stage:
        return FakeStage()
