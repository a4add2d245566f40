import pytest

from ai_proxy.core.service import ExternalLaunch, Service, Upstream
from ai_proxy.runtimes.external import ExternalRuntime
from ai_proxy.testing.contracts import Play, RuntimeContract, Stage, start

UPSTREAMS = (Upstream("127.0.0.1", 8080), Upstream("127.0.0.1", 8081))


class ExternalStage(Stage):
    def __init__(self) -> None:
        self.runtime = ExternalRuntime()

    def service(self, play: Play) -> Service:
        launch = ExternalLaunch(() if play is Play.CANNOT_START else UPSTREAMS)
        return Service(play, "openai", "openai", launch, config_hash="1")


class TestExternalRuntime(RuntimeContract):
    @pytest.fixture
    def stage(self) -> Stage:
        return ExternalStage()


async def test_the_handle_names_every_upstream_and_is_never_listed() -> None:
    stage = ExternalStage()
    handle = await start(stage.runtime, stage.service(Play.RUNS))
    assert handle.upstreams == UPSTREAMS
    assert handle.ref == "http://127.0.0.1:8080"
    assert list(await stage.runtime.handles()) == []
    assert stage.runtime.logs("runs").tail(10) == []
