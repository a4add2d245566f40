import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trustme
import uvloop
from loguru import logger
from tests.integration.tls.pebble import Pebble, pebble_with, reason_for_none

from ai_proxy.testing.fakes import FakeClock
from ai_proxy.tls.certificates import PemFiles


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run everything on the loop of production and on the one that is everywhere; what takes long, once."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    return loops if "test_acme" in item.nodeid else {**loops, "asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, ca: trustme.CA) -> PemFiles:
    """A certificate for localhost and its key, in files of their own."""
    issued = ca.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return PemFiles(tmp_path / "cert.pem", tmp_path / "key.pem")


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at this moment, so that certificates made by others are valid."""
    return FakeClock(time.time() - FakeClock(0).wall())


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}", level="INFO")
    yield lines
    logger.remove(sink)


@pytest.fixture(scope="session")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    need_pebble()
    with fussy_pebble(tmp_path_factory.mktemp("pebble")) as pebble:
        yield pebble


def fussy_pebble(folder: Path) -> AbstractContextManager[Pebble]:
    """Run an authority that refuses every other nonce, and whose certificates live for a day."""
    return pebble_with(folder, {"PEBBLE_WFE_NONCEREJECT": "50"}, {"certificateValidityPeriod": 86_400})


def need_pebble() -> None:
    """Skip where there is none."""
    if reason := reason_for_none():
        pytest.skip(reason)
