"""A store is brought up to date whole, with a copy from before, or stays as it was."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from ai_proxy.core.errors import StoreError, StoreMigrationError, StoreNewerError
from ai_proxy.core.store_ports import AuditEntry
from ai_proxy.persistence.database import Database, file_url, parse_url
from ai_proxy.persistence.migrate import SCRIPTS, Scripts
from ai_proxy.persistence.store import open_store
from ai_proxy.persistence.tables import metadata

STEP = '''
"""A step for tests."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    with op.batch_alter_table("settings") as table:
        table.add_column(sa.Column("who", sa.Text))
    op.execute("UPDATE settings SET who = 'somebody'")
    {then}
'''
FINE, FAILS, DIES = "pass", "raise ValueError('no such luck')", "import os; os.kill(os.getpid(), 9)"


def with_step(folder: Path, then: str) -> Scripts:
    """Return the real steps, and one more that ends in a certain way."""
    shutil.copytree(SCRIPTS.folder, folder / "steps")
    (folder / "steps" / "versions" / "v0002_test.py").write_text(STEP.format(then=then))
    return Scripts(folder / "steps", "0002")


async def make_store(url: str) -> None:
    async with open_store(url) as store:
        await store.settings.put("kept", 1)


def dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


def test_the_last_step_is_the_one_that_the_program_wants() -> None:
    assert ScriptDirectory(str(SCRIPTS.folder)).get_heads() == [SCRIPTS.head]


async def test_the_steps_lead_to_the_tables_that_the_code_uses(url: str) -> None:
    await make_store(url)

    async with Database(parse_url(url)) as database, database.reading() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True}), metadata
            )
        )

    assert differences == []


async def test_a_step_keeps_what_was_there(url: str, tmp_path: Path) -> None:
    await make_store(url)

    async with open_store(url, scripts=with_step(tmp_path, FINE)) as store:
        assert await store.settings.get("kept") == 1


async def test_a_step_that_fails_leaves_the_store_as_it_was_and_says_so(url: str, tmp_path: Path) -> None:
    await make_store(url)

    with pytest.raises(StoreMigrationError, match=r"is as it was.*no such luck"):
        async with open_store(url, scripts=with_step(tmp_path, FAILS)):
            pass

    async with open_store(url) as store:
        assert await store.settings.all() == {"kept": 1}


async def test_the_file_is_copied_before_a_step_and_untouched_by_one_that_fails(tmp_path: Path) -> None:
    file = tmp_path / "data" / "ai-proxy.db"
    await make_store(file_url(file.parent))
    before, content = file.read_bytes(), dump(file)

    with pytest.raises(StoreMigrationError) as failed:
        async with open_store(file_url(file.parent), scripts=with_step(tmp_path, FAILS)):
            pass

    assert file.read_bytes() == before
    [copy] = (file.parent / "backups").glob("before-0002-*.db")
    assert dump(copy) == content
    assert str(copy) in failed.value.detail
    assert copy.stat().st_mode & 0o777 == 0o600


async def test_being_killed_in_a_step_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    url = file_url(tmp_path / "data")
    await make_store(url)
    content = dump(tmp_path / "data" / "ai-proxy.db")
    scripts = with_step(tmp_path, DIES)

    code = f"""
import asyncio
from pathlib import Path
from ai_proxy.persistence.migrate import Scripts
from ai_proxy.persistence.store import open_store
async def main():
    async with open_store({url!r}, scripts=Scripts(Path({str(scripts.folder)!r}), "0002")): pass
asyncio.run(main())
"""
    died = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True)

    assert died.returncode == -9
    assert dump(tmp_path / "data" / "ai-proxy.db") == content


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(url: str, tmp_path: Path) -> None:
    async with open_store(url, scripts=with_step(tmp_path, FINE)) as store:
        await store.settings.put("kept", 1)

    with pytest.raises(StoreNewerError, match=r"its schema is 0002.*knows those up to 0001"):
        async with open_store(url):
            pass

    async with open_store(url, scripts=Scripts(tmp_path / "steps", "0002")) as store:
        assert await store.settings.get("kept") == 1


async def test_several_may_open_an_empty_store_at_once(url: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(make_store(url))

    async with open_store(url) as store:
        assert await store.settings.all() == {"kept": 1}


@pytest.mark.parametrize("statement", ["UPDATE audit SET who = 'me'", "DELETE FROM audit"])
async def test_not_even_sql_changes_the_audit_log(url: str, statement: str) -> None:
    async with open_store(url) as store, Database(parse_url(url)) as database:
        await store.audit.append([AuditEntry(1.0, "k1", "key.create", "local", "ok")])
        with pytest.raises(StoreError, match="can only be added to"):
            async with database.writing() as connection:
                await connection.execute(text(statement))

        assert [entry.who for entry in await store.audit.page()] == ["k1"]
