"""The program on a disk or a store that fails: it says what is wrong, goes on, and loses nothing."""

import asyncio
import http.client
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from tests import disks
from tests.disks import fill
from tests.e2e.conftest import Answer, Proxy, chat, eventually, fake
from tests.integration.persistence.holding import held_by_another_process

from ai_proxy.config.schema import Config
from ai_proxy.core.keys import Grant, Scope
from ai_proxy.instances.state import ProxyState, open_state
from ai_proxy.platform.clock import SystemClock
from ai_proxy.testing.fake_engine import Behaviour


@pytest.fixture
def proxy_on_small_disk(tmp_path: Path) -> Iterator[Proxy]:
    """A proxy whose data directory is on a disk of 1 MB; what it runs is ended before that goes."""
    with (
        disks.small_disk(tmp_path / "disk") as disk,
        tempfile.TemporaryDirectory(prefix="aip-") as run_dir,
    ):
        running = Proxy(tmp_path, Path(run_dir))
        running.environment["AI_PROXY_DATA_DIR"] = str(disk / "data")
        try:
            yield running
        finally:
            running.clean_up()


def data_of(proxy: Proxy) -> Path:
    return Path(proxy.environment["AI_PROXY_DATA_DIR"])


def database_of(proxy: Proxy) -> Path:
    return data_of(proxy) / "ai-proxy.db"


def make_key(proxy: Proxy, scope: Scope = Scope.INFERENCE) -> tuple[str, str]:
    """Make a key before the proxy is started; return it and its id."""

    async def make() -> tuple[str, str]:
        async with open_state(Config(), SystemClock(), proxy.environment) as state:
            plain, key = await state.security.keys.create(Grant("test", frozenset({scope})))
            return plain.text, key.id

    return asyncio.run(make())


def is_revoked(proxy: Proxy, key_id: str) -> bool:
    """Tell whether a key is revoked on disk."""

    async def look(state: ProxyState) -> bool:
        return any(key.id == key_id and key.revoked is not None for key in await state.store.keys.all())

    async def run() -> bool:
        async with open_state(Config(), SystemClock(), proxy.environment) as state:
            return await look(state)

    return asyncio.run(run())


def test_a_backup_is_made_while_it_runs_and_restored_only_when_it_does_not(proxy: Proxy) -> None:
    proxy.configure()
    make_key(proxy)
    proxy.serve()

    created = proxy.cli("backup", "create", "backup.tar.gz")
    refused = proxy.cli("backup", "restore", "backup.tar.gz", "--force")
    proxy.end()
    restored = proxy.cli("backup", "restore", "backup.tar.gz", "--force")

    assert created.returncode == 0
    assert "ai-proxy.db" in created.stdout
    assert refused.returncode == 1
    assert "end the ai-proxy that runs on it" in refused.stderr
    assert restored.returncode == 0
    assert list(data_of(proxy).glob("before-restore-*/ai-proxy.db"))


@pytest.mark.parametrize("words", [("backup", "create"), ("check",)])
def test_a_damaged_store_is_told_in_one_line_with_the_next_step(proxy: Proxy, words: tuple[str, ...]) -> None:
    proxy.configure()
    make_key(proxy)
    with database_of(proxy).open("r+b") as file:
        file.write(b"\xa5" * 4096)

    ended = proxy.cli(*words)

    (line,) = [line for line in (ended.stdout + ended.stderr).splitlines() if "is damaged" in line]
    assert ended.returncode == 1
    assert "ai-proxy backup restore" in line
    assert "Traceback" not in ended.stderr


def test_check_tells_of_a_full_disk_and_of_a_read_only_one(proxy_on_small_disk: Proxy) -> None:
    proxy = proxy_on_small_disk
    proxy.configure()
    make_key(proxy)
    disk = data_of(proxy).parent

    filler = fill(disk)
    full = proxy.cli("check")
    filler.unlink()
    disks.make_read_only(disk)
    read_only = proxy.cli("check")
    disks.make_writable(disk)

    assert (full.returncode, read_only.returncode) == (1, 1)
    assert "keys and revocations cannot be saved -> free space on it" in full.stdout
    assert "the disk of the store" in full.stdout
    assert "is not writable -> give this user write permission" in read_only.stdout


def ask(proxy: Proxy, key: str, method: str, path: str, body: object = None) -> Answer:
    """Send a request with a key and read the whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    try:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def infer(proxy: Proxy, key: str) -> int:
    """Ask a model, and return the status of the answer."""
    return ask(proxy, key, "POST", "/service/a/v1/chat/completions", chat()).status


def test_a_disk_that_fills_up_stops_no_inference_and_a_revocation_holds_and_is_kept_later(
    proxy_on_small_disk: Proxy,
) -> None:
    proxy = proxy_on_small_disk
    user, user_id = make_key(proxy)
    other, _ = make_key(proxy)
    admin, _ = make_key(proxy, Scope.ADMIN)
    proxy.configure(a=fake(Behaviour.OK))
    proxy.serve()
    assert infer(proxy, user) == 200

    filler = fill(data_of(proxy).parent)
    exhaust_journal(proxy, admin)
    revoked = ask(proxy, admin, "DELETE", f"/api/v1/keys/{user_id}")

    assert revoked.status in (200, 507)
    assert infer(proxy, user) == 401
    assert infer(proxy, other) == 200
    filler.unlink()
    eventually(lambda: is_revoked(proxy, user_id))
    assert proxy.end() == 0


def exhaust_journal(proxy: Proxy, admin: str) -> None:
    """Make keys until there is no room for another."""
    for _ in range(500):
        if ask(proxy, admin, "POST", "/api/v1/keys", {"label": "x" * 100}).status == 507:
            return
    raise AssertionError("the disk is still not full")


def test_a_locked_database_stops_no_inference_and_a_revocation_holds_and_is_kept_later(proxy: Proxy) -> None:
    user, user_id = make_key(proxy)
    other, _ = make_key(proxy)
    admin, _ = make_key(proxy, Scope.ADMIN)
    proxy.configure(a=fake(Behaviour.OK))
    proxy.serve()
    assert infer(proxy, user) == 200

    with ThreadPoolExecutor() as pool:
        with held_by_another_process(database_of(proxy), "BEGIN EXCLUSIVE"):
            revoking = pool.submit(ask, proxy, admin, "DELETE", f"/api/v1/keys/{user_id}")
            eventually(lambda: infer(proxy, user) == 401, seconds=5)
            held_back = not revoking.done()
            status = infer(proxy, other)
        revoked = revoking.result()

    assert held_back
    assert status == 200
    assert revoked.status == 200
    assert is_revoked(proxy, user_id)
    assert proxy.end() == 0


def lose_store(proxy: Proxy) -> None:
    """Delete the database with its journals, as somebody does who cleans up."""
    for file in data_of(proxy).glob("ai-proxy.db*"):
        file.unlink()


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
def test_a_lost_store_lets_nobody_in_until_it_is_restored_and_the_proxy_then_serves_by_itself(
    proxy: Proxy,
) -> None:
    user, _ = make_key(proxy)
    proxy.configure(a=fake(Behaviour.OK))
    proxy.cli("backup", "create", "backup.tar.gz")
    lose_store(proxy)

    proxy.serve()
    without_key = proxy.ask("/service/a/v1/models")
    with_key = infer(proxy, user)
    told = proxy.log.read_text()
    restored = proxy.cli("backup", "restore", "backup.tar.gz", "--force")

    assert (without_key.status, with_key) == (503, 503)
    assert "cannot read its API keys" in without_key.json["detail"]
    assert "was deleted, emptied or replaced: its API keys" in told
    assert restored.returncode == 0, restored.stderr
    eventually(lambda: infer(proxy, user) == 200)
    assert proxy.ask("/service/a/v1/models").status == 401
    assert proxy.end() == 0


def test_a_lost_store_that_the_owner_accepts_is_a_new_one(proxy: Proxy) -> None:
    make_key(proxy)
    proxy.configure(a=fake(Behaviour.OK))
    lose_store(proxy)
    proxy.serve()

    checked = proxy.cli("check")
    refused = proxy.cli("api-keys", "create", "new")
    accepted = proxy.cli("security", "accept-loss")

    assert checked.returncode == 1
    assert "was deleted, emptied or replaced" in checked.stdout
    assert (refused.returncode, accepted.returncode) == (1, 0), accepted.stderr
    assert "ai-proxy security accept-loss" in refused.stderr
    eventually(lambda: proxy.ask("/v1/models").status == 200)
    assert "security.accept-loss" in proxy.cli("audit").stdout


def test_a_disk_that_is_full_at_the_start_lets_clients_in_once_there_is_room(
    proxy_on_small_disk: Proxy,
) -> None:
    proxy = proxy_on_small_disk
    user, _ = make_key(proxy)
    proxy.configure(a=fake(Behaviour.OK))
    proxy.cli("check", "--fix")
    make_installation_id(proxy)
    filler = fill(data_of(proxy).parent)

    proxy.serve()
    refused = ask(proxy, user, "GET", "/v1/models")
    commands = proxy.cli("ps")
    filler.unlink()

    assert refused.status == 503
    assert "is full" in proxy.log.read_text()
    assert commands.returncode == 0
    eventually(lambda: infer(proxy, user) == 200)
    assert proxy.end() == 0


def make_installation_id(proxy: Proxy) -> None:
    """Have the proxy run once, as on a machine whose disk filled up later."""
    proxy.serve()
    assert proxy.end() == 0


def test_a_read_only_disk_lets_clients_in_once_it_can_be_written(proxy_on_small_disk: Proxy) -> None:
    proxy = proxy_on_small_disk
    user, _ = make_key(proxy)
    proxy.configure(a=fake(Behaviour.OK))
    make_installation_id(proxy)
    disks.make_read_only(data_of(proxy).parent)

    proxy.serve()
    refused = ask(proxy, user, "GET", "/v1/models")
    commands = proxy.cli("ps")
    disks.make_writable(data_of(proxy).parent)

    assert refused.status == 503
    assert "Read-only file system" in proxy.log.read_text()
    assert commands.returncode == 0
    eventually(lambda: infer(proxy, user) == 200)


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
def test_a_missing_data_directory_is_logged_and_key_creation_fails(proxy: Proxy) -> None:
    user, _ = make_key(proxy)
    admin, _ = make_key(proxy, Scope.ADMIN)
    proxy.configure(a=fake(Behaviour.OK))
    proxy.serve()
    assert infer(proxy, user) == 200

    shutil.rmtree(data_of(proxy))
    eventually(lambda: "was deleted or replaced while it is in use" in proxy.log.read_text())
    made = ask(proxy, admin, "POST", "/api/v1/keys", {"label": "new"})
    proxy.cli("api-keys", "list")  # makes a new, empty store there

    assert made.status == 503
    assert "nothing can be saved; restart the proxy" in made.json["detail"]
    assert infer(proxy, user) == 200
    assert proxy.ask("/service/a/v1/models").status == 401
    assert proxy.end() == 0


@pytest.mark.parametrize("whole", [True, False], ids=["the whole folder", "the sockets alone"])
def test_a_run_directory_that_vanishes_is_made_again(proxy: Proxy, whole: bool) -> None:
    proxy.configure(a=fake(Behaviour.OK))
    proxy.serve()
    folder = proxy.run_dir / str(proxy.port)
    assert proxy.cli("ps").returncode == 0

    if whole:
        shutil.rmtree(proxy.run_dir)
    else:
        for path in folder.glob("*.sock"):
            path.unlink()
    eventually(lambda: "was deleted while it is in use; it is made again" in proxy.log.read_text())

    assert proxy.cli("ps").returncode == 0
    assert proxy.cli("start", "a").returncode == 0
    assert proxy.ask("/api/v1/services").status == 200
    assert {path.stat().st_mode & 0o077 for path in (proxy.run_dir, folder, *folder.glob("*.sock"))} == {0}
    assert proxy.end() == 0
    assert not (folder / "control.sock").exists()


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
def test_a_store_of_a_newer_version_lets_nobody_in_and_is_left_as_it_is(proxy: Proxy) -> None:
    user, _ = make_key(proxy)
    proxy.configure(a=fake(Behaviour.OK))
    with closing(sqlite3.connect(database_of(proxy))) as store, store:
        store.execute("UPDATE alembic_version SET version_num = '9999'")

    proxy.serve()
    refused = ask(proxy, user, "GET", "/v1/models")
    listed = proxy.cli("api-keys", "list")

    assert refused.status == 503
    assert "was made by a newer ai-proxy" in proxy.log.read_text()
    assert (listed.returncode, "install the newer one again" in listed.stderr) == (1, True)
    with closing(sqlite3.connect(database_of(proxy))) as store:
        assert store.execute("SELECT count(*) FROM api_keys").fetchone() == (1,)


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
def test_a_damaged_store_refuses_clients_and_serves_the_owners_commands(proxy: Proxy) -> None:
    user, _ = make_key(proxy)
    proxy.configure(a=fake(Behaviour.OK))
    with database_of(proxy).open("r+b") as file:
        file.write(b"\xa5" * 4096)

    proxy.serve()
    with_key, without = infer(proxy, user), proxy.ask("/v1/models").status
    started = proxy.cli("start", "a")

    assert (with_key, without) == (503, 503)
    assert started.returncode == 0, started.stderr
    assert "is damaged" in proxy.log.read_text()


def test_a_store_that_is_locked_at_the_start_lets_clients_in_once_it_is_free(proxy: Proxy) -> None:
    user, _ = make_key(proxy)
    proxy.configure(a=fake(Behaviour.OK))

    with held_by_another_process(database_of(proxy), "BEGIN EXCLUSIVE"):
        proxy.serve()

    eventually(lambda: infer(proxy, user) == 200)
    assert proxy.end() == 0
