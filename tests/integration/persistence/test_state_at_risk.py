"""What lasts, as a whole, on disks and databases that fail: what is wrong is said, and no key is lost."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests import disks
from tests.disks import fill, make_read_only, make_writable
from tests.integration.persistence.holding import held_by_another_process

from ai_proxy.config.schema import Config
from ai_proxy.core.errors import (
    InvalidKeyError,
    InvalidRequestError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from ai_proxy.core.keys import Grant
from ai_proxy.instances.state import ProxyState, accept_loss, open_state
from ai_proxy.persistence.backup import create_backup, restore_backup
from ai_proxy.persistence.database import file_url
from ai_proxy.persistence.store import open_store
from ai_proxy.platform.clock import SystemClock
from ai_proxy.security.pepper import load_pepper
from ai_proxy.security.security import Security, open_security

NOW = 1_800_000_000.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk") as disk:
        yield disk


def vault_in(data: Path) -> AbstractAsyncContextManager[ProxyState]:
    return open_state(Config(), SystemClock(), {"AI_PROXY_DATA_DIR": str(data)})


async def make_keys(data: Path, count: int = 1) -> list[bytes]:
    async with vault_in(data) as state:
        made = [await state.security.keys.create(Grant("laptop")) for _ in range(count)]
    return [plain.text.encode() for plain, _ in made]


def is_good(security: Security, plain: bytes) -> bool:
    try:
        security.keys.verify(plain, NOW)
    except InvalidKeyError:
        return False
    return True


def remove_journals(data: Path) -> None:
    for journal in data.glob("ai-proxy.db-*"):
        journal.unlink()


async def test_a_disk_that_is_full_from_the_start_is_named_and_works_once_there_is_room(
    small_disk: Path,
) -> None:
    filler = fill(small_disk)

    with pytest.raises(StoreFullError, match="free some"):
        await make_keys(small_disk / "data")

    filler.unlink()
    (plain,) = await make_keys(small_disk / "data")
    async with vault_in(small_disk / "data") as state:
        assert is_good(state.security, plain)


async def test_a_disk_that_became_full_is_named_and_no_key_is_lost(small_disk: Path) -> None:
    (plain,) = await make_keys(small_disk / "data")
    filler = fill(small_disk)

    with pytest.raises(StoreFullError, match="free some"):
        await make_keys(small_disk / "data")

    filler.unlink()
    async with vault_in(small_disk / "data") as state:
        assert is_good(state.security, plain)


async def test_a_read_only_disk_is_named_and_no_key_is_lost(small_disk: Path) -> None:
    (plain,) = await make_keys(small_disk / "data")
    make_read_only(small_disk)

    with pytest.raises(StoreReadOnlyError, match="Read-only file system; give this user the right"):
        await make_keys(small_disk / "data")

    make_writable(small_disk)
    async with vault_in(small_disk / "data") as state:
        assert is_good(state.security, plain)


async def test_while_another_holds_the_store_keys_are_good_and_a_revocation_is_kept_afterwards(
    tmp_path: Path,
) -> None:
    plain, revoked = await make_keys(tmp_path, 2)
    database = tmp_path / "ai-proxy.db"
    async with open_store(file_url(tmp_path), patience=0.05) as store:
        with contextlib.ExitStack() as holding:
            holding.enter_context(held_by_another_process(database, "BEGIN EXCLUSIVE"))
            async with open_security(store, load_pepper(tmp_path), SystemClock()) as security:
                found = security.keys.find(revoked)
                assert found is not None

                with pytest.raises(StoreUnavailableError, match="another program holds the store"):
                    await security.keys.revoke(found.id)
                with pytest.raises(StoreUnavailableError, match="another program holds the store"):
                    await security.keys.create(Grant("new"))

                assert (is_good(security, plain), is_good(security, revoked)) == (True, False)
                holding.close()

    async with vault_in(tmp_path) as state:
        assert (is_good(state.security, plain), is_good(state.security, revoked)) == (True, False)


async def test_a_page_that_was_overwritten_is_told_or_harms_no_key(tmp_path: Path) -> None:
    (plain,) = await make_keys(tmp_path)
    database = tmp_path / "ai-proxy.db"
    sound = database.read_bytes()
    refused = 0

    for begin in range(0, len(sound), 4096):
        for garbage in (b"\0" * 4096, b"\xa5" * 4096):
            database.write_bytes(sound[:begin] + garbage + sound[begin + 4096 :])
            try:
                async with vault_in(tmp_path) as state:
                    assert is_good(state.security, plain), f"page {begin // 4096}"
            except StoreError:
                refused += 1
            remove_journals(tmp_path)

    assert refused >= 4  # at least its header and the page of the keys


async def test_a_header_that_was_overwritten_is_told_with_the_way_back_which_works(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup.tar.gz"
    (plain,) = await make_keys(data)
    database = data / "ai-proxy.db"
    create_backup(data, backup, database=database, program="1", now=NOW)
    with database.open("r+b") as file:
        file.write(b"\xa5" * 4096)
    damaged = database.read_bytes()

    with pytest.raises(StoreDamagedError, match="run 'ai-proxy backup restore'"):
        await make_keys(data)
    assert database.read_bytes() == damaged
    restored = restore_backup(backup, data, database=database, force=True, now=NOW)

    async with vault_in(data) as state:
        assert is_good(state.security, plain)
    assert restored.replaced is not None
    assert (restored.replaced / "ai-proxy.db").read_bytes() == damaged


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
async def test_a_file_that_was_emptied_does_not_open_the_proxy_to_everybody(tmp_path: Path) -> None:
    await make_keys(tmp_path)
    (tmp_path / "ai-proxy.db").write_bytes(b"")

    with pytest.raises(StoreDamagedError, match="is empty, although it was in use"):
        await make_keys(tmp_path)

    assert (tmp_path / "ai-proxy.db").stat().st_size == 0


async def test_a_file_that_was_emptied_before_there_was_a_mark_does_not_open_it_either(
    tmp_path: Path,
) -> None:
    await make_keys(tmp_path)
    (tmp_path / "secured").unlink()
    (tmp_path / "ai-proxy.db").write_bytes(b"")

    with pytest.raises(StoreDamagedError, match="is empty, although it was in use"):
        await make_keys(tmp_path)


def delete_store(data: Path) -> None:
    (data / "ai-proxy.db").unlink()
    remove_journals(data)


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
@pytest.mark.parametrize("replaced", [True, False])
async def test_a_store_that_lost_its_keys_is_refused_until_the_owner_accepts_it(
    tmp_path: Path, *, replaced: bool
) -> None:
    await make_keys(tmp_path)
    delete_store(tmp_path)
    if replaced:
        async with open_store(file_url(tmp_path)):
            pass

    for _ in range(2):
        with pytest.raises(StoreDamagedError, match="'ai-proxy security accept-loss' to start without them"):
            await make_keys(tmp_path)

    await accept_loss(Config(), {"AI_PROXY_DATA_DIR": str(tmp_path)})
    assert await make_keys(tmp_path)


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
async def test_a_store_that_lost_its_policy_is_refused(tmp_path: Path) -> None:
    async with vault_in(tmp_path) as state:
        await state.security.policy.set({"allowlist": ["192.0.2.0/24"]}, "owner")
    delete_store(tmp_path)

    with pytest.raises(StoreDamagedError, match="its API keys and policy are gone"):
        await make_keys(tmp_path)


async def test_a_store_with_keys_of_an_earlier_version_is_marked_when_it_is_opened(tmp_path: Path) -> None:
    await make_keys(tmp_path)
    (tmp_path / "secured").unlink()

    async with vault_in(tmp_path):
        pass

    assert (tmp_path / "secured").exists()


async def test_a_store_that_never_held_a_key_may_go(tmp_path: Path) -> None:
    async with vault_in(tmp_path):
        pass
    delete_store(tmp_path)

    async with vault_in(tmp_path) as state:
        assert not state.security.keys.has_keys


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
@pytest.mark.parametrize("with_keys", [True, False])
async def test_accept_loss_refuses_an_intact_store(tmp_path: Path, *, with_keys: bool) -> None:
    async with vault_in(tmp_path) as state:
        if with_keys:
            await state.security.keys.create(Grant("laptop"))

    with pytest.raises(InvalidRequestError, match="is not lost"):
        await accept_loss(Config(), {"AI_PROXY_DATA_DIR": str(tmp_path)})

    async with vault_in(tmp_path) as state:
        assert state.security.keys.has_keys is with_keys


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
async def test_an_unreadable_store_cannot_be_accepted_as_lost(tmp_path: Path) -> None:
    await make_keys(tmp_path)
    with (tmp_path / "ai-proxy.db").open("r+b") as file:
        file.write(b"\xa5" * 4096)

    with pytest.raises(StoreDamagedError, match="not a database"):
        await accept_loss(Config(), {"AI_PROXY_DATA_DIR": str(tmp_path)})

    assert (tmp_path / "secured").exists()


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
async def test_a_missing_pepper_is_an_error_and_is_not_replaced(tmp_path: Path) -> None:
    await make_keys(tmp_path)
    (tmp_path / "pepper").unlink()

    with pytest.raises(StoreDamagedError, match=r"pepper .* is missing.*restore it"):
        await make_keys(tmp_path)

    assert not (tmp_path / "pepper").exists()


KILLED = """
import asyncio, os, signal
from ai_proxy.config.schema import Config
from ai_proxy.platform.clock import SystemClock
from ai_proxy.core.keys import Grant
from ai_proxy.instances.state import open_state

async def main():
    async with open_state(Config(), SystemClock()) as state:
        await state.security.keys.create(Grant("only in the journal"))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def make_key_and_die(data: Path) -> None:
    environment = {"AI_PROXY_DATA_DIR": str(data)}
    subprocess.run([sys.executable, "-c", KILLED], env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("garbage", [b"", b"\xa5" * 50_000])
async def test_a_journal_that_was_destroyed_takes_nothing_with_it_that_was_in_the_database(
    tmp_path: Path, garbage: bytes
) -> None:
    (plain,) = await make_keys(tmp_path)
    make_key_and_die(tmp_path)
    journal = tmp_path / "ai-proxy.db-wal"
    assert journal.stat().st_size > 0

    journal.write_bytes(garbage)

    async with vault_in(tmp_path) as state:
        assert is_good(state.security, plain)
        assert await state.store.problems() == []
