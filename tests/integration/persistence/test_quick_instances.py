"""Commands find the instances without opening the store, unless there is no other way."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ai_proxy.core.errors import StoreDamagedError, StoreError
from ai_proxy.core.store_ports import Instance
from ai_proxy.persistence.database import FILE_NAME, file_url
from ai_proxy.persistence.quick_instances import QuickInstances, read_instances
from ai_proxy.persistence.store import Store, open_store

INSTANCE = Instance("h1", "box", 4711, 1.25, "127.0.0.1", 11000, "local-http", ("http://127.0.0.1:11000",))
OTHER = replace(INSTANCE, id="h2", port=10999, endpoints=(), last_error="renewal failed")


async def test_what_a_proxy_has_left_is_read_from_the_file(tmp_path: Path) -> None:
    async with open_store(file_url(tmp_path)) as store:
        await store.instances.put(INSTANCE)
        await store.instances.put(OTHER)

        assert read_instances(tmp_path / FILE_NAME) == [OTHER, INSTANCE]


async def test_a_store_by_url_is_read_and_written_as_well(store: Store, url: str, tmp_path: Path) -> None:
    await store.instances.put(INSTANCE)
    quick = QuickInstances(url, tmp_path / "elsewhere")
    await quick.put(OTHER)
    await quick.drop(INSTANCE.id)

    assert await quick.all() == await store.instances.all() == [OTHER]


def test_where_there_is_no_store_nothing_is_made(tmp_path: Path) -> None:
    assert asyncio.run(QuickInstances(None, tmp_path).all()) == ()
    assert list(tmp_path.iterdir()) == []


async def test_what_is_dropped_is_gone_for_a_proxy_that_runs(tmp_path: Path) -> None:
    async with open_store(file_url(tmp_path)) as store:
        await store.instances.put(INSTANCE)

        await QuickInstances(None, tmp_path).drop(INSTANCE.id)

        assert await store.instances.all() == []


async def test_somebody_who_writes_does_not_hold_it_up(tmp_path: Path) -> None:
    async with open_store(file_url(tmp_path)) as store:
        await store.instances.put(INSTANCE)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")

        assert read_instances(tmp_path / FILE_NAME) == [INSTANCE]


async def test_a_store_from_before_is_brought_up_to_date(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()

    assert await QuickInstances(None, tmp_path).all() == []
    assert read_instances(tmp_path / FILE_NAME) == []


async def test_a_damaged_store_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)

    with pytest.raises(StoreDamagedError, match="backup restore"):
        await QuickInstances(None, tmp_path).all()


async def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="AI_PROXY_DATA_DIR"):
        await QuickInstances(None, tmp_path / ("x" * 300)).all()
