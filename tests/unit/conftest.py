"""A data directory for each test: a copy of an empty one, which is quicker than to make one."""

import asyncio
import shutil
from pathlib import Path

import pytest

from ai_proxy.config.schema import Config
from ai_proxy.testing.clock import FakeClock
from ai_proxy.vault import open_vault


async def _open(folder: Path) -> None:
    async with open_vault(Config(), FakeClock(), {"AI_PROXY_DATA_DIR": str(folder)}):
        pass


@pytest.fixture(scope="session")
def empty_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory in which nothing is kept yet."""
    folder = tmp_path_factory.mktemp("empty") / "data"
    asyncio.run(_open(folder))
    return folder


@pytest.fixture
def data(empty_data: Path, tmp_path: Path) -> Path:
    """A data directory of the test's own."""
    return shutil.copytree(empty_data, tmp_path / "data")
