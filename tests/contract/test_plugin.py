"""The plug-in of the documentation: its author checks it as this file does."""

from collections.abc import AsyncIterator

import pytest
from tests.fixtures.plugin.madeup import ENGINE, InsideRuntime

from ai_proxy.core.service import PluginLaunch, Service
from ai_proxy.testing.contracts import Play, RuntimeContract, Stage


class InsideStage(Stage):
    def __init__(self) -> None:
        self.runtime = InsideRuntime()

    def service(self, play: Play) -> Service:
        options = {} if play is Play.CANNOT_START else {"words": "hello"}
        return Service(play, "made-up", "madeup", PluginLaunch("inside", options), config_hash="1")


class TestInsideRuntime(RuntimeContract):
    @pytest.fixture
    async def stage(self) -> AsyncIterator[Stage]:
        stage = InsideStage()
        yield stage
        for handle in await stage.runtime.handles():
            await stage.runtime.stop(handle, 0.0)


def test_the_engine_reads_its_own_list_of_models() -> None:
    (listing,) = ENGINE.profile.listings
    models = listing.read({"names": ["wise", 7]})
    assert models is not None
    assert [model.id for model in models] == ["wise"]
