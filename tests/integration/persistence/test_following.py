"""A change in the store takes effect in a proxy that runs on it, whatever program makes the change."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from ai_proxy.core.keys import ApiKey, Grant
from ai_proxy.persistence.database import Database, parse_url
from ai_proxy.persistence.store import open_store
from ai_proxy.platform.clock import SystemClock
from ai_proxy.security.pepper import load_pepper
from ai_proxy.security.security import Security, open_security

REVOKE = "UPDATE api_keys SET revoked = 1"
PEPPER = b"p" * 32


@asynccontextmanager
async def instance(url: str, pepper: bytes = PEPPER) -> AsyncIterator[Security]:
    """Run what a proxy runs to keep in step with its store."""
    async with open_store(url) as store, open_security(store, pepper, SystemClock()) as security:
        yield security


async def until(security: Security, true: Callable[[], bool]) -> None:
    """Wait until the keys have changed so that something holds."""
    changed = asyncio.Event()
    security.keys.listen(changed.set)
    async with asyncio.timeout(60):
        while not true():
            await changed.wait()
            changed.clear()


async def until_revoked(security: Security, key: ApiKey) -> None:
    await until(security, lambda: not security.keys.is_in_force(key.id))


@pytest.mark.threat("an ordinary key", "access after its revocation")
async def test_a_revocation_by_another_instance(url: str) -> None:
    async with instance(url) as here, instance(url) as there:
        _, key = await here.keys.create(Grant("laptop"))
        await until(there, lambda: there.keys.is_in_force(key.id))

        await there.keys.revoke(key.id)

        await until_revoked(here, key)


async def test_a_revocation_in_sql(url: str) -> None:
    async with instance(url) as here, Database(parse_url(url)) as database:
        _, key = await here.keys.create(Grant("laptop"))

        await database.write(lambda transaction: transaction.run(REVOKE))

        await until_revoked(here, key)


async def test_a_revocation_by_a_program_that_writes_the_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ai-proxy.db"
    code = f"import sqlite3; c = sqlite3.connect('ai-proxy.db'); c.execute({REVOKE!r}); c.commit()"
    async with instance(url) as here:
        _, key = await here.keys.create(Grant("laptop"))

        writer = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=tmp_path)

        await until_revoked(here, key)
        assert await writer.wait() == 0


async def test_a_revocation_by_a_command(url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "config.yaml").write_text("store: {url: '${env:URL}'}\n")
    async with instance(url, load_pepper(data)) as here:
        _, key = await here.keys.create(Grant("laptop"))

        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ai_proxy", "api-keys", "revoke", key.id, "--config", "config.yaml"),
            cwd=tmp_path,
            env={"AI_PROXY_DATA_DIR": str(data), "URL": url},
            stdout=asyncio.subprocess.DEVNULL,
        )

        await until_revoked(here, key)
        assert await command.wait() == 0


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_server_that_hung_up_is_followed_again(url: str) -> None:
    async with instance(url) as here, instance(url) as there:
        _, key = await here.keys.create(Grant("laptop"))
        async with Database(parse_url(url)) as database:
            await database.read(
                lambda transaction: transaction.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

        await there.keys.load()
        await there.keys.revoke(key.id)

        await until_revoked(here, key)


async def test_what_a_proxy_writes_itself_is_not_loaded_again(tmp_path: Path) -> None:
    """Last uses and counts are written all the time, and change nothing that is kept in memory."""
    file = tmp_path / "ai-proxy.db"
    async with open_store(f"sqlite:///{file}") as store:
        async with open_security(store, PEPPER, SystemClock()) as security:
            _, key = await security.keys.create(Grant("laptop"))
        before = await store.changes.counts()

        await store.keys.touch({key.id: 1.0})

        with closing(sqlite3.connect(file)) as database:
            assert database.execute("SELECT last_used FROM api_keys").fetchall() == [(1.0,)]
        assert await store.changes.counts() == before
