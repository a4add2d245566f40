"""A store is brought up to date whole, with a copy from before, or stays as it was."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from ai_proxy.core.errors import StoreError, StoreMigrationError, StoreNewerError
from ai_proxy.core.store_ports import AuditEntry
from ai_proxy.persistence.database import Database, file_url, parse_url
from ai_proxy.persistence.migrate import MIGRATIONS, Migrations
from ai_proxy.persistence.sqlite import Sqlite
from ai_proxy.persistence.store import open_store

FIRST_VERSION = Path(__file__).parents[2] / "fixtures" / "store_0001"
STEP = "ALTER TABLE settings ADD COLUMN who TEXT; UPDATE settings SET who = 'somebody'; "
FINE, FAILS = "SELECT 1", "SELECT no_such_luck"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


def with_step(folder: Path, then: str) -> Migrations:
    """Return the real steps, and one more that ends in a certain way."""
    shutil.copytree(MIGRATIONS.folder, folder / "steps")
    for kind in ("sqlite", "postgresql"):
        (folder / "steps" / f"9999.{kind}.sql").write_text(STEP + then)
    return Migrations(folder / "steps")


async def make_store(url: str) -> None:
    async with open_store(url) as store:
        await store.settings.put("kept", 1)


def dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


def test_every_step_has_a_script_for_each_database() -> None:
    scripts = {file.name for file in MIGRATIONS.folder.glob("*.sql")}
    steps = [f"{number:04}" for number in range(1, len(MIGRATIONS.revisions) + 1)]

    assert list(MIGRATIONS.revisions) == steps
    assert scripts == {f"{step}.{kind}.sql" for step in steps for kind in ("sqlite", "postgresql")}


async def test_a_store_of_the_first_version_is_brought_up_to_date(url: str, tmp_path: Path) -> None:
    """That version made its tables with other tools; the fixtures are what they made."""
    async with open_store(url, migrations=Migrations(FIRST_VERSION)):
        pass

    async with open_store(url) as store:
        await store.settings.put("kept", 1)
        assert await store.changes.counts() == {"settings": 1}
        assert [key.id for key in await store.keys.all()] == ["0123456789ab"]
        assert await store.settings.all() == {"made": 2.5, "kept": 1}


async def test_a_step_keeps_what_was_there(url: str, tmp_path: Path) -> None:
    await make_store(url)

    async with open_store(url, migrations=with_step(tmp_path, FINE)) as store:
        assert await store.settings.get("kept") == 1


async def test_a_step_that_fails_leaves_the_store_as_it_was_and_says_so(url: str, tmp_path: Path) -> None:
    await make_store(url)

    with pytest.raises(StoreMigrationError, match=r"is as it was.*no_such_luck"):
        async with open_store(url, migrations=with_step(tmp_path, FAILS)):
            pass

    async with open_store(url) as store:
        assert await store.settings.all() == {"kept": 1}


async def test_the_file_is_copied_before_a_step_and_untouched_by_one_that_fails(tmp_path: Path) -> None:
    file = tmp_path / "data" / "ai-proxy.db"
    await make_store(file_url(file.parent))
    before, content = file.read_bytes(), dump(file)

    with pytest.raises(StoreMigrationError) as failed:
        async with open_store(file_url(file.parent), migrations=with_step(tmp_path, FAILS)):
            pass

    assert file.read_bytes() == before
    [copy] = (file.parent / "backups").glob("before-9999-*.db")
    assert dump(copy) == content
    assert str(copy) in failed.value.detail
    assert copy.stat().st_mode & 0o777 == 0o600


async def test_being_killed_in_a_step_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    url = file_url(tmp_path / "data")
    await make_store(url)
    content = dump(tmp_path / "data" / "ai-proxy.db")
    migrations = with_step(tmp_path, ENDLESS)

    code = f"""
import asyncio, os, threading, time
from pathlib import Path
from ai_proxy.persistence.migrate import Migrations
from ai_proxy.persistence.store import open_store
backups = Path({str(tmp_path / "data" / "backups")!r})
def die_in_the_step():
    while not list(backups.glob("before-9999-*.db")):
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
async def main():
    async with open_store({url!r}, migrations=Migrations(Path({str(migrations.folder)!r}))): pass
threading.Thread(target=die_in_the_step, daemon=True).start()
asyncio.run(main())
"""
    died = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True)

    assert died.returncode == -9
    assert dump(tmp_path / "data" / "ai-proxy.db") == content


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(url: str, tmp_path: Path) -> None:
    async with open_store(url, migrations=with_step(tmp_path, FINE)) as store:
        await store.settings.put("kept", 1)

    with pytest.raises(StoreNewerError, match=rf"its schema is 9999.*knows those up to {MIGRATIONS.head}"):
        async with open_store(url):
            pass

    async with open_store(url, migrations=Migrations(tmp_path / "steps")) as store:
        assert await store.settings.get("kept") == 1


async def test_several_may_open_an_empty_store_at_once(url: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(make_store(url))

    async with open_store(url) as store:
        assert await store.settings.all() == {"kept": 1}


def test_several_may_make_one_file_at_once(tmp_path: Path) -> None:
    def connect(path: Path) -> None:
        Sqlite(path, foreign_keys=True, patience=60.0).connect().close()

    with ThreadPoolExecutor(6) as threads:
        for number in range(40):
            (tmp_path / f"{number}.db").touch()
            list(threads.map(connect, [tmp_path / f"{number}.db"] * 6))


@pytest.mark.threat("an operator's mistake", "a changed audit log")
@pytest.mark.parametrize("statement", ["UPDATE audit SET who = 'me'", "DELETE FROM audit"])
async def test_not_even_sql_changes_the_audit_log(url: str, statement: str) -> None:
    async with open_store(url) as store, Database(parse_url(url)) as database:
        await store.audit.append([AuditEntry(1.0, "k1", "key.create", "local", "ok")])
        with pytest.raises(StoreError, match="can only be added to"):
            await database.write(lambda transaction: transaction.run(statement))

        assert [entry.who for entry in await store.audit.page()] == ["k1"]
