"""Requests made up from the OpenAPI document about keys, policy, audit and settings, to an app with a store.

They go to the app itself: through the gateway, a policy or a key made on the way would shut out the rest.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from starlette.types import ASGIApp
from tests.rigs.management import create_app
from tests.rigs.plane import FakePlane

from ai_proxy.api.application import openapi_document
from ai_proxy.api.middleware import Caller, Middleware
from ai_proxy.config.schema import Config
from ai_proxy.instances.state import open_state
from ai_proxy.platform.clock import SystemClock

CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"deterministic": True, "max-examples": 10, "database": "none"},
        "phases": {"stateful": {"enabled": False}},
        "request-timeout": 20.0,
    }
)
BEYOND_THE_SCHEMA = [schemathesis.checks.positive_data_acceptance]
"""Not every text is a network, and not every number a value that a setting can have."""
KEPT = r"^/api/v1/(keys|usage|policy|audit|settings)"

schema = schemathesis.openapi.from_dict(openapi_document(), config=CONFIG).include(path_regex=KEPT)


class Served(uvicorn.Server):
    """The application, which says when it answers."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(uvicorn.Config(app, port=0, lifespan="off", log_config=None))
        self.ready = threading.Event()
        self.url = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.url = f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"
        self.ready.set()


async def serve(data: Path, started: "Queue[Served]") -> None:
    async with open_state(Config(), SystemClock(), {"AI_PROXY_DATA_DIR": str(data)}) as state:
        app = create_app(FakePlane(), lambda: (b"", "text/plain"), "1.2.3", state=state)
        served = Served(Middleware(app, lambda _: Caller("0123456789ab", "192.0.2.7")))
        started.put(served)
        await served.serve()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    started = Queue[Served]()
    data = tmp_path_factory.mktemp("keeping")
    thread = threading.Thread(target=lambda: asyncio.run(serve(data, started)))
    thread.start()
    served = started.get(timeout=20)
    served.ready.wait(20)
    yield served.url
    served.should_exit = True
    thread.join(20)


@schema.parametrize()
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_documented(case: schemathesis.Case[Any], url: str) -> None:
    case.query.pop("follow", None)  # for ever

    case.call_and_validate(base_url=url, excluded_checks=BEYOND_THE_SCHEMA)
