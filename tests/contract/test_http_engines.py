from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import aiohttp
import pytest
from tests.rigs.recorded_engine import Mood, recorded_engine

from ai_proxy.core.service import Upstream
from ai_proxy.engines.catalog import BUILT_IN
from ai_proxy.engines.http import HttpEngine
from ai_proxy.testing.contracts import EngineContract, Serve, Subject
from ai_proxy.testing.fake_engine import Behaviour, running_fake_engine

MOODS = {
    Behaviour.OK: Mood.HEALTHY,
    Behaviour.NEVER_READY: Mood.LOADING,
    Behaviour.GARBAGE: Mood.GARBAGE,
    Behaviour.HANG: Mood.SILENT,
}
HEALTH_PATHS = {"llamacpp": "/health", "vllm": "/health", "ollama": "/api/version", "lmstudio": "/v1/models"}


@pytest.fixture
async def engine(name: str) -> AsyncIterator[HttpEngine]:
    async with aiohttp.ClientSession() as session:
        yield HttpEngine(BUILT_IN[name].profile, session, timeout=0.8)


class TestRecordedEngines(EngineContract):
    """Engines that are asked as themselves."""

    @pytest.fixture(params=HEALTH_PATHS)
    def name(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    @pytest.fixture
    def engine(self, engine: HttpEngine) -> HttpEngine:
        return engine

    @pytest.fixture
    def serve(self, name: str) -> Iterator[Serve]:
        with ExitStack() as stack:

            def run(behaviour: Behaviour) -> Subject:
                port = stack.enter_context(recorded_engine(name, MOODS[behaviour]))
                return Subject(Upstream("127.0.0.1", port), HEALTH_PATHS[name])

            yield run


class TestEnginesThatSpeakOpenAIsApi(EngineContract):
    """Engines of which nothing is recorded."""

    @pytest.fixture(params=["sglang", "openai", "generic"])
    def name(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    @pytest.fixture
    def engine(self, engine: HttpEngine) -> HttpEngine:
        return engine

    @pytest.fixture
    def serve(self) -> Iterator[Serve]:
        with ExitStack() as stack:

            def run(behaviour: Behaviour) -> Subject:
                port = stack.enter_context(running_fake_engine(behaviour))
                return Subject(Upstream("127.0.0.1", port))

            yield run
