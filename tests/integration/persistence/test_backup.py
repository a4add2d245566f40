"""A backup as one file: whole and private when made, checked before anything is touched when restored."""

import io
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.persistence.holding import held_by_another_process

from ai_proxy.core.errors import StoreDamagedError, StoreNewerError, StoreUnavailableError
from ai_proxy.core.keys import Grant
from ai_proxy.persistence.backup import BackupError, create_backup, restore_backup
from ai_proxy.persistence.database import file_url
from ai_proxy.persistence.file import back_up_before
from ai_proxy.persistence.store import Store, open_store
from ai_proxy.security.pepper import load_pepper
from ai_proxy.security.security import open_security
from ai_proxy.testing.fakes import FakeClock

NOW = 1_700_000_000.0


async def make_key(store: Store, data: Path) -> bytes:
    async with open_security(store, load_pepper(data), FakeClock()) as security:
        plain, _ = await security.keys.create(Grant("laptop"))
        return plain.text.encode()


async def knows(data: Path, plain: bytes) -> bool:
    """Tell whether a key is good in a data directory."""
    async with (
        open_store(file_url(data)) as store,
        open_security(store, load_pepper(data), FakeClock()) as security,
    ):
        return security.keys.find(plain) is not None


async def filled(data: Path) -> bytes:
    """Fill a data directory; return the key that is in it."""
    async with open_store(file_url(data)) as store:
        plain = await make_key(store, data)
    (data / "installation-id").write_text("me")
    (data / "tls" / "acme").mkdir(parents=True)
    (data / "tls" / "ca.pem").write_text("certificate and key")
    (data / "tls" / "acme" / "account.pem").write_text("account")
    (data / "tls" / "lock").touch()
    return plain


def back_up(data: Path, target: Path) -> Path:
    create_backup(data, target, database=data / "ai-proxy.db", program="1.2.3", now=NOW)
    return target


def put_back(file: Path, data: Path, *, force: bool = False) -> Path | None:
    restored = restore_backup(file, data, database=data / "ai-proxy.db", force=force, now=NOW)
    return restored.replaced


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


async def test_everything_that_lasts_comes_back_on_another_machine(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    plain = await filled(there)
    file = back_up(there, tmp_path / "backup.tar.gz")

    aside = put_back(file, here)

    assert aside is None
    assert await knows(here, plain)
    assert (here / "installation-id").read_text() == "me"
    assert (here / "tls" / "acme" / "account.pem").read_text() == "account"
    assert not (here / "tls" / "lock").exists()
    assert {path.stat().st_mode & 0o777 for path in (*here.rglob("*"), file) if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (here, here / "tls")} == {0o700}


async def test_it_is_made_while_the_store_is_in_use_and_holds_what_was_kept(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with open_store(file_url(data)) as store:
        plain = await make_key(store, data)
        file = back_up(data, tmp_path / "backup.tar.gz")

    put_back(file, tmp_path / "fresh")

    assert await knows(tmp_path / "fresh", plain)


async def test_what_is_there_is_replaced_only_by_force_and_kept_aside(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = await filled(data)
    file = back_up(data, tmp_path / "backup.tar.gz")
    async with open_store(file_url(data)) as store:
        second = await make_key(store, data)
    before = snapshot(data)

    with pytest.raises(BackupError, match="--force"):
        put_back(file, data)
    assert snapshot(data) == before

    aside = put_back(file, data, force=True)

    assert aside is not None
    assert aside.parent == data
    assert (await knows(data, first), await knows(data, second)) == (True, False)
    assert await knows(aside, second)


async def test_a_damaged_database_with_its_journal_is_replaced_and_kept(tmp_path: Path) -> None:
    data = tmp_path / "data"
    plain = await filled(data)
    file = back_up(data, tmp_path / "backup.tar.gz")
    (data / "ai-proxy.db").write_bytes(b"garbage" * 1000)
    (data / "ai-proxy.db-wal").write_bytes(b"stale")

    aside = put_back(file, data, force=True)

    assert await knows(data, plain)
    assert aside is not None
    assert (aside / "ai-proxy.db-wal").read_bytes() == b"stale"


async def test_nothing_is_restored_while_a_proxy_runs_on_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await filled(data)
    file = back_up(data, tmp_path / "backup.tar.gz")
    before = snapshot(data)

    with held_by_another_process(data / "ai-proxy.db"), pytest.raises(StoreUnavailableError, match="in use"):
        put_back(file, data, force=True)

    assert {name: text for name, text in snapshot(data).items() if name in before} == before
    assert not list(data.glob("before-restore-*"))


async def test_a_copy_from_before_a_migration_can_be_restored_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    plain = await filled(data)
    copy = back_up_before(data / "ai-proxy.db", "0002")
    (data / "ai-proxy.db").unlink()

    put_back(copy, data, force=True)

    assert await knows(data, plain)
    assert (data / "tls" / "ca.pem").exists()


async def test_with_a_database_on_a_server_the_files_are_kept_and_each_belongs_to_its_kind(
    tmp_path: Path,
) -> None:
    data, here, there = tmp_path / "data", tmp_path / "here", tmp_path / "there"
    await filled(data)
    files = tmp_path / "files.tar.gz"
    whole = back_up(data, tmp_path / "whole.tar.gz")

    manifest = create_backup(data, files, database=None, program="1.2.3", now=NOW)
    restore_backup(files, here, database=None, force=False, now=NOW)

    assert set(manifest.files) == {"pepper", "installation-id", "tls/ca.pem", "tls/acme/account.pem"}
    assert (here / "pepper").read_bytes() == (data / "pepper").read_bytes()
    with pytest.raises(BackupError, match="holds no database"):
        put_back(files, there)
    with pytest.raises(BackupError, match="holds a database"):
        restore_backup(whole, there, database=None, force=False, now=NOW)
    assert snapshot(there) == {}


def test_no_file_is_overwritten_and_nothing_is_kept_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pepper").write_text("secret")

    with pytest.raises(BackupError, match="exists already"):
        back_up(tmp_path / "data", tmp_path / "mine")
    with pytest.raises(BackupError, match="holds nothing yet"):
        back_up(tmp_path / "empty", tmp_path / "backup.tar.gz")
    with pytest.raises(BackupError, match="No such file"):
        back_up(tmp_path / "data", tmp_path / "absent" / "backup.tar.gz")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "mine"]


async def test_a_damaged_database_is_not_taken_for_a_backup(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with open_store(file_url(data)) as store:
        await store.settings.put("large", ["x" * 100] * 2000)
    size = (data / "ai-proxy.db").stat().st_size
    with (data / "ai-proxy.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * (size - 4096 * 4))

    with pytest.raises(StoreDamagedError, match="is damaged"):
        back_up(data, tmp_path / "backup.tar.gz")

    assert not (tmp_path / "backup.tar.gz").exists()


async def test_a_backup_that_was_cut_anywhere_changes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await filled(data)
    whole = back_up(data, tmp_path / "whole.tar.gz").read_bytes()
    before = snapshot(data)
    cut = tmp_path / "cut.tar.gz"

    for size in (0, 1, 20, 200, *range(500, len(whole) - 16, 997)):
        cut.write_bytes(whole[:size])
        with pytest.raises((BackupError, StoreDamagedError)):
            put_back(cut, data, force=True)

    assert snapshot(data) == before


async def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await filled(data)
    file = back_up(data, tmp_path / "backup.tar.gz")
    changed = repacked(file, tmp_path / "changed.tar.gz", {"pepper": lambda text: b"0" * len(text)})

    with pytest.raises(BackupError, match="differ from its manifest"):
        put_back(changed, tmp_path / "fresh")

    assert snapshot(tmp_path / "fresh") == {}


async def test_a_backup_by_a_newer_program_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await filled(data)
    with closing(sqlite3.connect(data / "ai-proxy.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    file = back_up(data, tmp_path / "backup.tar.gz")

    with pytest.raises(StoreNewerError, match=r"newer ai-proxy.*9999"):
        put_back(file, tmp_path / "fresh")


MANIFEST = b'{"format":1,"program":"1","schema":null,"created":"","files":%s}'


def archive_of(target: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(f"ai-proxy-backup/{name}")
    made.type, made.linkname = kind, link
    return made


EMPTY = b'{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}'


@pytest.mark.threat("an operator's mistake", "a file outside the data directory through a backup")
@pytest.mark.parametrize(
    ("files", "tricks"),
    [
        (b"{}", [member("../../evil")]),
        (b'{"../evil":%s}' % EMPTY, [member("../evil")]),
        (b'{"/evil":%s}' % EMPTY, [tarfile.TarInfo("/evil")]),
        (b'{"tls/../../evil":%s}' % EMPTY, [member("tls/../../evil")]),
        (b'{"pepper":%s}' % EMPTY, [member("pepper", tarfile.SYMTYPE, "/etc/passwd")]),
        (b'{"pepper":%s}' % EMPTY, [member("pepper", tarfile.LNKTYPE, "../evil")]),
        (b'{"pepper":%s}' % EMPTY, [member("pepper", tarfile.CHRTYPE)]),
        (b'{"pepper":%s}' % EMPTY, [member("pepper", tarfile.FIFOTYPE)]),
        (
            b'{"tls/x":%s}' % EMPTY,
            [member("tls", tarfile.SYMTYPE, "/etc"), member("tls/x")],
        ),
        (b"{}", [member("pepper")]),
        (b'{"pepper":%s}' % EMPTY, []),
    ],
)
def test_tricks_with_paths_links_and_devices_are_refused(
    tmp_path: Path, files: bytes, tricks: list[tarfile.TarInfo]
) -> None:
    data = tmp_path / "deep" / "data"
    parts = [(member("manifest.json"), MANIFEST % files), *((trick, b"") for trick in tricks)]
    file = archive_of(tmp_path / "evil.tar.gz", *parts)

    with pytest.raises(BackupError, match="nothing has changed"):
        restore_backup(file, data, database=None, force=True, now=NOW)

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "deep", "evil.tar.gz"]


@pytest.mark.parametrize("text", [b"[]", b"{}", b"", b"\xff", b'{"format":"x"}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    file = archive_of(tmp_path / "evil.tar.gz", (member("manifest.json"), text))

    with pytest.raises(BackupError, match="choose another"):
        put_back(file, tmp_path / "data")


def test_a_foreign_archive_and_a_format_to_come_are_told_apart(tmp_path: Path) -> None:
    foreign = archive_of(tmp_path / "foreign.tar.gz", (tarfile.TarInfo("holiday.jpg"), b"x"))
    future = MANIFEST.replace(b'"format":1', b'"format":2') % b"{}"
    newer = archive_of(tmp_path / "newer.tar.gz", (member("manifest.json"), future))

    with pytest.raises(BackupError, match="does not begin with a manifest"):
        put_back(foreign, tmp_path / "data")
    with pytest.raises(BackupError, match="install that version"):
        put_back(newer, tmp_path / "data")


def repacked(file: Path, target: Path, changes: dict[str, Callable[[bytes], bytes]]) -> Path:
    with tarfile.open(file) as archive:
        parts = []
        for one in archive.getmembers():
            opened = archive.extractfile(one)
            assert opened is not None
            change = changes.get(Path(one.name).name, bytes)
            parts.append((one, change(opened.read())))
    return archive_of(target, *parts)
