from pathlib import Path

import pytest

from ai_proxy.core.errors import StoreError
from ai_proxy.persistence.database import Database, file_url, parse_url


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("sqlite:////srv/ai-proxy.db", "sqlite+aiosqlite"),
        ("postgres://me@host/db", "postgresql+asyncpg"),
        ("postgresql://me@host/db?ssl=require", "postgresql+asyncpg"),
    ],
)
def test_a_url_needs_no_driver(text: str, driver: str) -> None:
    assert parse_url(text).drivername == driver


@pytest.mark.parametrize("folder", ["/srv/with space", "/srv/100%/ü?#", "relative"])
def test_any_folder_has_a_url(folder: str) -> None:
    assert Path(parse_url(file_url(Path(folder))).database or "") == Path(folder) / "ai-proxy.db"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "write postgresql://"),
        ("mysql://me:hunter2@host/db", "sqlite or postgresql, not 'mysql'"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_its_password(text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as refused:
        parse_url(text)

    assert "hunter2" not in str(refused.value)


async def test_a_database_is_shown_without_its_password() -> None:
    async with Database(parse_url("postgresql://me:hunter2@host/db")) as database:
        assert repr(database) == "<Database [postgresql+asyncpg://me:***@host/db]>"
