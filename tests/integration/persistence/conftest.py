"""Stores to test with: the same tests run on SQLite and on PostgreSQL."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.persistence.postgres import database_url, private_postgres, reason_for_none, run_sql

from ai_proxy.persistence.database import file_url
from ai_proxy.persistence.store import Store, open_store

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """A server, by the folder of its socket; where there can be none, tests skip."""
    if reason := reason_for_none():
        pytest.skip(reason)
    with private_postgres() as folder:
        yield folder


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgres"))])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return file_url(tmp_path / "data")
    server: Path = request.getfixturevalue("postgres")
    name = f"test{next(_numbers)}"
    run_sql(server, f"CREATE DATABASE {name}")
    return database_url(server, name)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    """A store on it."""
    async with open_store(url) as opened:
        yield opened
