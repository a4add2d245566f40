"""A real store for each test: a copy of an empty one, which is quicker than to make one."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_proxy.persistence.database import FILE_NAME, file_url
from ai_proxy.persistence.store import Store, open_store
from ai_proxy.testing.fakes import FakeClock


async def _make_store(folder: Path) -> None:
    async with open_store(file_url(folder)):
        pass


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty store."""
    folder = tmp_path_factory.mktemp("empty-store")
    asyncio.run(_make_store(folder))
    return folder / FILE_NAME


@pytest.fixture
def url(empty_store: Path, tmp_path: Path) -> str:
    """An empty store, not open."""
    shutil.copy(empty_store, tmp_path)
    return file_url(tmp_path)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    """An empty store."""
    async with open_store(url) as opened:
        yield opened


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
