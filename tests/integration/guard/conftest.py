"""A gateway whose guard has real keys and a real policy, in a real store."""

import asyncio
import gc
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.rigs.raw_http import Message, build_request
from tests.rigs.wire_rig import WireRig, wire_rig

from ai_proxy.core.keys import ApiKey, Grant, Scope
from ai_proxy.core.settings import SecuritySettings
from ai_proxy.core.store_ports import AuditEntry
from ai_proxy.gateway.guard import KeyGuard
from ai_proxy.gateway.routing.endpoints import OLLAMA
from ai_proxy.persistence.database import FILE_NAME, file_url
from ai_proxy.persistence.store import Store, open_store
from ai_proxy.security.pepper import load_pepper
from ai_proxy.security.security import Security, open_security
from ai_proxy.testing.fakes import FakeClock

SETTINGS = SecuritySettings(hosts=("test",))
"""Requests of these tests come to the host `test`."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run everything on the loop of production."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def quick_collections() -> Iterator[None]:
    """Every rig collects garbage at its end: leave the modules out of that."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty store: to copy it is quicker than to make one."""
    folder = tmp_path_factory.mktemp("empty-store")

    async def make() -> None:
        async with open_store(file_url(folder)):
            pass

    asyncio.run(make())
    return folder / FILE_NAME


@pytest.fixture(autouse=True)
def stored(empty_store: Path, tmp_path: Path) -> None:
    """There is an empty store in the test's folder."""
    shutil.copy(empty_store, tmp_path)


@dataclass
class House:
    """A guarded gateway, with what its guard goes by.

    Attributes:
        rig: The gateway and its surroundings.
        store: What lasts.
        security: Keys, policy, limits and audit.
        clock: Time, in the test's hand.
    """

    rig: WireRig
    store: Store
    security: Security
    clock: FakeClock

    async def key(self, *scopes: Scope, expires: float | None = None, **grant: Any) -> tuple[bytes, ApiKey]:
        """Make a key, for inference if nothing else is said."""
        made = Grant("test", frozenset(scopes or (Scope.INFERENCE,)), **grant)
        plain, key = await self.security.keys.create(made, expires)
        return plain.text.encode(), key

    async def policy(self, **document: Any) -> None:
        """Put a policy in force."""
        await self.security.policy.set(document, "owner")

    async def ask(self, target: bytes = b"/service/svc/x", *headers: bytes, **request: Any) -> Message:
        """Send a request on a connection of its own."""
        return await self.rig.ask(build_request(target, *headers, **request))

    async def ollama(self) -> int:
        """Listen in the place of Ollama as well, and return the port."""
        port = await self.rig.gateway.listen("127.0.0.1", 0, frontend=OLLAMA)
        await self.rig.gateway.accept()
        return port

    async def audit(self) -> list[AuditEntry]:
        """Return everything that was written down."""
        await self.security.audit.flush()
        return [entry async for entry in self.security.audit.export()]


def bearer(key: bytes) -> bytes:
    return b"Authorization: Bearer " + key


@asynccontextmanager
async def guarded(
    folder: Path, settings: SecuritySettings = SETTINGS, *, exposed: bool = False, **rig: Any
) -> AsyncIterator[House]:
    clock = FakeClock()
    async with (
        open_store(file_url(folder)) as store,
        open_security(store, load_pepper(folder), clock) as security,
        wire_rig(**rig) as wire,
    ):
        wire.gateway.protect(KeyGuard(security, settings, clock, exposed=exposed))
        yield House(wire, store, security, clock)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with guarded(tmp_path) as house:
        yield house
