from pathlib import Path

import pytest

from ai_proxy.core.errors import StoreError
from ai_proxy.persistence.database import Database, StoreUrl, file_url, parse_url


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("postgres://me@host/db", "postgresql://me@host/db"),
        ("postgresql+asyncpg://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me@host/db?a=b&ssl=require", "postgresql://me@host/db?a=b&sslmode=require"),
    ],
)
def test_urls_that_earlier_versions_took_are_understood(text: str, server: str) -> None:
    assert parse_url(text) == StoreUrl(None, server)


@pytest.mark.parametrize("folder", ["/srv/with space", "/srv/100%/ü?#", "relative"])
def test_any_folder_has_a_url(folder: str) -> None:
    assert parse_url(file_url(Path(folder))).path == Path(folder) / "ai-proxy.db"


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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:hunter2/@@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@/db?password=hunter2&host=/run", "postgresql://me@/db?password=***&host=/run"),
    ],
)
async def test_a_database_is_shown_without_its_password(url: str, shown: str) -> None:
    async with Database(parse_url(url)) as database:
        assert repr(database) == f"<Database [{shown}]>"
