import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.persistence.holding import held_by_another_process

from ai_proxy.core.errors import StoreError, StoreUnavailableError
from ai_proxy.persistence.database import file_url
from ai_proxy.persistence.file import KEPT, back_up_before, copy_database, database_problems, sole_use
from ai_proxy.persistence.store import open_store


async def put(folder: Path, value: int) -> None:
    async with open_store(file_url(folder)) as store:
        await store.settings.put("value", value)


async def test_a_copy_made_while_the_store_is_open_holds_all_that_is_kept(tmp_path: Path) -> None:
    async with open_store(file_url(tmp_path / "data")) as store:
        await store.settings.put("value", 1)
        copy_database(tmp_path / "data" / "ai-proxy.db", tmp_path / "ai-proxy.db")

    async with open_store(file_url(tmp_path)) as copy:
        assert await copy.settings.get("value") == 1


def test_a_copy_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "garbage.db").write_bytes(b"garbage" * 1000)

    with pytest.raises(StoreError):
        copy_database(tmp_path / "garbage.db", tmp_path / "copy.db")

    assert sorted(file.name for file in tmp_path.iterdir()) == ["garbage.db"]


async def test_only_the_last_copies_from_before_migrations_are_kept(tmp_path: Path) -> None:
    await put(tmp_path, 1)

    made = [back_up_before(tmp_path / "ai-proxy.db", "0002") for _ in range(KEPT + 2)]

    assert [file for file in made if file.exists()] == made[2:]


async def test_a_database_that_another_process_has_open_cannot_be_had_alone(tmp_path: Path) -> None:
    file = tmp_path / "ai-proxy.db"
    await put(tmp_path, 1)

    with (
        held_by_another_process(file),
        pytest.raises(StoreUnavailableError, match="end the ai-proxy that runs on it"),
        sole_use(file),
    ):
        pass

    with sole_use(file):
        pass


def test_a_damaged_database_and_an_absent_one_can_be_had_alone(tmp_path: Path) -> None:
    (tmp_path / "damaged.db").write_bytes(b"garbage" * 1000)

    with sole_use(tmp_path / "damaged.db"), sole_use(tmp_path / "absent.db"):
        pass


async def test_looking_a_large_database_over_ends_when_patience_does(tmp_path: Path) -> None:
    await put(tmp_path, 1)
    with closing(sqlite3.connect(tmp_path / "ai-proxy.db")) as database, database:
        database.execute("CREATE TABLE large (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO large (text) VALUES (?)", (("x" * 50,) for _ in range(20_000)))

    assert database_problems(tmp_path / "ai-proxy.db", patience=60.0) == []
    with pytest.raises(TimeoutError):
        database_problems(tmp_path / "ai-proxy.db", patience=0.0)
