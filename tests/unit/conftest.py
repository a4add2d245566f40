"""What unit tests of several folders share."""

import asyncio
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from ai_proxy.config.schema import Config
from ai_proxy.instances.state import open_state
from ai_proxy.testing.fakes import FakeClock


async def _open(folder: Path) -> None:
    async with open_state(Config(), FakeClock(), {"AI_PROXY_DATA_DIR": str(folder)}):
        pass


@pytest.fixture(scope="session")
def empty_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory in which nothing is kept yet."""
    folder = tmp_path_factory.mktemp("empty") / "data"
    asyncio.run(_open(folder))
    return folder


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Leave logging as it was, after something that configures it for the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    logger.remove()


@pytest.fixture
def data(empty_data: Path, tmp_path: Path) -> Path:
    """A data directory of the test's own: a copy, which is quicker than to make one."""
    return shutil.copytree(empty_data, tmp_path / "data")
