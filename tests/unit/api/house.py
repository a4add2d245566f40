"""The application with a store, on its two sockets."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tests.rigs.fake_detector import FakeDetector, detection
from tests.rigs.management import create_app
from tests.rigs.plane import FakePlane, view

from ai_proxy.api.middleware import client_principal, owner_principal
from ai_proxy.api.sockets import serve_unix
from ai_proxy.config.schema import Config
from ai_proxy.core.store_ports import AuditEntry
from ai_proxy.instances.state import ProxyState, open_state
from ai_proxy.testing.fakes import FakeClock

CLIENT = {"X-AI-Proxy-Principal": "0123456789ab", "X-AI-Proxy-Client": "192.0.2.7"}
"""What the gateway says of a client."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """The code of the problem; empty for none."""
        return self.headers.get("X-AI-Proxy-Error", "")


@dataclass(frozen=True, slots=True)
class House:
    """The application, and what it keeps."""

    plane: FakePlane
    state: ProxyState
    clock: FakeClock
    owner: aiohttp.ClientSession
    client: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: object = None, *, as_owner: bool = False) -> Said:
        """Ask as a client that has a key, or as the owner."""
        session = self.owner if as_owner else self.client
        async with session.request(method, f"/api/v1{path}", json=body) as response:
            return Said(response.status, await response.json(content_type=None), response.headers)

    async def log(self) -> list[AuditEntry]:
        """Return what the audit log holds."""
        return list(await self.state.store.audit.page())


@asynccontextmanager
async def open_house(data: Path, sockets: Path) -> AsyncIterator[House]:
    """Serve the application on a data directory."""
    clock, plane = FakeClock(), FakePlane(view("llama3"), view("coder"))
    async with open_state(Config(), clock, {"AI_PROXY_DATA_DIR": str(data)}) as state:
        app = create_app(
            plane,
            lambda: (b"", "text/plain"),
            "1.2.3",
            detector=FakeDetector(detection("ollama")),
            state=state,
        )
        async with (
            serve_unix(sockets / "owner.sock", app, owner_principal),
            serve_unix(sockets / "client.sock", app, client_principal),
            _over(sockets / "owner.sock") as owner,
            _over(sockets / "client.sock", CLIENT) as client,
        ):
            yield House(plane, state, clock, owner, client)


def _over(path: Path, headers: Mapping[str, str] | None = None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession("http://x", connector=aiohttp.UnixConnector(str(path)), headers=headers)
