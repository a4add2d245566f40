from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from tests.rigs.management import create_app
from tests.rigs.plane import FakePlane, view
from tests.unit.api.house import House, open_house

from ai_proxy.api.deps import Requests
from ai_proxy.api.middleware import client_principal, owner_principal
from ai_proxy.api.sockets import serve_unix
from ai_proxy.core.lifecycle import State
from ai_proxy.core.usage import LiveRequest
from ai_proxy.platform.tasks import Restarts
from ai_proxy.telemetry.metrics import Metrics
from ai_proxy.telemetry.prometheus import render
from ai_proxy.telemetry.telemetry import RecentRequests


@dataclass(frozen=True, slots=True)
class Api:
    """The application on its two sockets, as the owner and as a client sees it."""

    plane: FakePlane
    recorder: Metrics
    recent: RecentRequests
    live: list[LiveRequest]
    restarts: dict[str, Restarts]
    owner: aiohttp.ClientSession
    client: aiohttp.ClientSession


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    plane = FakePlane(view("llama3"), view("coder", State.READY, starts=1))
    recorder, recent = Metrics(), RecentRequests()
    live, restarts = list[LiveRequest](), dict[str, Restarts]()
    app = create_app(
        plane,
        lambda: render(recorder.services, plane.services(), restarts, 7, "1.2.3"),
        "1.2.3",
        restarts=lambda: restarts,
        requests=Requests(recent.newest, lambda: live),
    )
    async with AsyncExitStack() as stack:
        sessions = []
        for name, principal in (("control.sock", owner_principal), ("gateway.sock", client_principal)):
            await stack.enter_async_context(serve_unix(tmp_path / name, app, principal))
            connector = aiohttp.UnixConnector(str(tmp_path / name))
            sessions.append(
                await stack.enter_async_context(aiohttp.ClientSession("http://x", connector=connector))
            )
        yield Api(plane, recorder, recent, live, restarts, *sessions)


@pytest.fixture
async def house(data: Path, tmp_path: Path) -> AsyncIterator[House]:
    """The application with a store."""
    async with open_house(data, tmp_path) as opened:
        yield opened
