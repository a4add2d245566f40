from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import aiohttp
import pytest

from ai_proxy.core.service import Upstream
from ai_proxy.engines.base import HttpEngine
from ai_proxy.engines.catalog import PROFILES
from ai_proxy.testing.engine_contract import EngineContract, Serve, Subject
from ai_proxy.testing.fake_engine import Behaviour, running_fake_engine


class TestHttpEngines(EngineContract):
    @pytest.fixture(params=["llamacpp", "generic"])
    async def engine(self, request: pytest.FixtureRequest) -> AsyncIterator[HttpEngine]:
        async with aiohttp.ClientSession() as session:
            yield HttpEngine(PROFILES[request.param], session, timeout=0.8)

    @pytest.fixture
    def serve(self) -> Iterator[Serve]:
        with ExitStack() as stack:

            def run(behaviour: Behaviour) -> Subject:
                port = stack.enter_context(running_fake_engine(behaviour))
                return Subject(Upstream("127.0.0.1", port))

            yield run
