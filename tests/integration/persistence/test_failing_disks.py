"""Full, read-only, locked and damaged: each says what is wrong, and loses nothing that was kept."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests import disks
from tests.disks import fill, make_read_only

from ai_proxy.core.errors import (
    InvalidKeyError,
    StoreDamagedError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from ai_proxy.core.keys import Grant
from ai_proxy.persistence.database import file_url
from ai_proxy.persistence.store import open_store
from ai_proxy.security.keys import KeyRing
from ai_proxy.testing.fakes import FakeClock


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk") as disk:
        yield disk


async def create_many(ring: KeyRing) -> None:
    for _ in range(5000):
        await ring.create(Grant("x" * 100))


@pytest.mark.threat("an operator's mistake", "a lost key or revocation")
async def test_a_full_disk_loses_no_key_that_was_made_and_none_is_made_that_is_lost(small_disk: Path) -> None:
    async with open_store(file_url(small_disk)) as store:
        ring = KeyRing(store.keys, b"p" * 32, FakeClock())
        await ring.create(Grant("laptop"))
        fill(small_disk)
        with pytest.raises(StoreFullError, match=r"the disk of the store .* is full .*; free some"):
            await create_many(ring)
        made = {key.id for key in ring.all()}
        assert made

    (small_disk / "filler").unlink()
    async with open_store(file_url(small_disk)) as store:
        assert {key.id for key in await store.keys.all()} == made
        assert await store.problems() == []


@pytest.mark.threat("an operator's mistake", "a lost key or revocation")
async def test_a_revocation_holds_on_a_full_disk_and_is_kept_when_there_is_room(small_disk: Path) -> None:
    async with open_store(file_url(small_disk)) as store:
        ring = KeyRing(store.keys, b"p" * 32, FakeClock())
        plain, key = await ring.create(Grant("laptop"))
        filler = fill(small_disk)
        with pytest.raises(StoreFullError):
            await create_many(ring)

        with pytest.raises(StoreFullError):
            await ring.revoke(key.id)
        with pytest.raises(InvalidKeyError, match="was revoked"):
            ring.verify(plain.text.encode(), now=0.0)
        await ring.load()
        with pytest.raises(InvalidKeyError, match="was revoked"):
            ring.verify(plain.text.encode(), now=0.0)

        filler.unlink()
        await ring.flush()
        assert [one.revoked is not None for one in await store.keys.all() if one.id == key.id] == [True]


async def test_a_read_only_disk_is_named_with_what_to_do(small_disk: Path) -> None:
    make_read_only(small_disk)

    with pytest.raises(StoreReadOnlyError, match="AI_PROXY_DATA_DIR"):
        async with open_store(file_url(small_disk / "data")):
            pass


async def test_a_read_only_store_is_named_with_what_to_do(small_disk: Path) -> None:
    async with open_store(file_url(small_disk)):
        pass
    make_read_only(small_disk)

    with pytest.raises(StoreReadOnlyError, match="give this user the right to write"):
        async with open_store(file_url(small_disk)):
            pass


async def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with pytest.raises(StoreReadOnlyError, match="choose another folder"):
        async with open_store(file_url(tmp_path / "data")):
            pass


async def test_a_store_that_another_program_holds_can_be_read_and_is_written_later(tmp_path: Path) -> None:
    url = file_url(tmp_path)
    async with open_store(url, patience=0.05) as store:
        await store.settings.put("kept", 1)
        with closing(sqlite3.connect(tmp_path / "ai-proxy.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError, match="another program holds the store") as refused:
                await store.settings.put("new", 2)
            assert await store.settings.all() == {"kept": 1}
            assert refused.value.retry_after
            other.execute("ROLLBACK")

        await store.settings.put("new", 2)


async def test_a_lock_holds_up_a_queue_of_transactions_once(tmp_path: Path) -> None:
    async with open_store(file_url(tmp_path), patience=0.5) as store:
        await store.settings.put("kept", 1)
        with closing(sqlite3.connect(tmp_path / "ai-proxy.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            queue = [store.settings.put(f"new {number}", 2) for number in range(100)]

            async with asyncio.timeout(25):  # each on its own would make 50 s
                results = await asyncio.gather(*queue, return_exceptions=True)

            assert {type(result) for result in results} == {StoreUnavailableError}
            other.execute("ROLLBACK")

        await store.settings.put("new", 2)


@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_acknowledged_that_a_deleted_file_would_lose(tmp_path: Path, replaced: bool) -> None:
    file = tmp_path / "ai-proxy.db"
    async with open_store(file_url(tmp_path)) as store:
        await store.settings.put("kept", 1)
        for name in ("ai-proxy.db", "ai-proxy.db-wal", "ai-proxy.db-shm"):
            (tmp_path / name).unlink()
        if replaced:
            file.touch()

        with pytest.raises(StoreUnavailableError, match=r"was deleted or replaced.*restart the proxy"):
            await store.settings.put("lost", 2)
        assert await store.settings.all() == {"kept": 1}


async def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "ai-proxy.db"
    file.write_bytes(b"not a database at all\n" * 1000)

    with pytest.raises(StoreDamagedError, match=r"backup restore.*or move the file away"):
        async with open_store(file_url(tmp_path)):
            pass

    assert file.read_bytes() == b"not a database at all\n" * 1000


async def test_damage_inside_is_named_where_it_is_met_and_found_by_a_check(tmp_path: Path) -> None:
    async with open_store(file_url(tmp_path)) as store:
        await store.settings.put("large", ["x" * 100] * 2000)
    size = (tmp_path / "ai-proxy.db").stat().st_size
    with (tmp_path / "ai-proxy.db").open("r+b") as file:
        file.seek(size // 2)  # within the large value, which comes last
        file.write(b"\xa5" * (size // 4))

    async with open_store(file_url(tmp_path)) as store:
        assert await store.problems()
        with pytest.raises(StoreDamagedError):
            await store.settings.all()


async def test_a_server_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://me:hunter2@/db?host={tmp_path}"

    with pytest.raises(StoreUnavailableError) as refused:
        async with open_store(url):
            pass

    assert "check that its server runs" in refused.value.detail
    assert "hunter2" not in str(refused.value)
