"""SQLite's file: made private, copied, locked and checked."""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ai_proxy.core.errors import StoreDamagedError, StoreError, StoreReadOnlyError, StoreUnavailableError
from ai_proxy.persistence.failures import explained
from ai_proxy.platform.private_files import FILE_MODE, fsync_path, make_folders, private_opener, set_mode

KEPT = 5
"""Copies from before migrations that are kept."""

SHARED_FIRST, SHARED_SIZE = 0x40000002, 510
"""Bytes of the file, beyond its content, on which readers hold a lock (SQLite's `os.h`)."""


def make_private(path: Path) -> None:
    """Make a database's folder and file, for the owner only; SQLite's files beside it inherit that.

    Raises:
        StoreReadOnlyError: They cannot be made, or not written.
    """
    try:
        make_folders(path.parent)
        os.close(private_opener(os.fspath(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC))
        set_mode(path, FILE_MODE)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(None, "the folder may not be written")
    except OSError as error:
        raise StoreReadOnlyError(
            f"cannot use the store {path}: {error.strerror}; give this user the right to write the file"
            " and its folder, or choose another folder with AI_PROXY_DATA_DIR"
        ) from error


def is_empty(path: Path) -> bool:
    """Tell whether a database's file is missing, or was truncated to nothing."""
    return not path.exists() or path.stat().st_size == 0


def backups_folder(database: Path) -> Path:
    """Return where copies from before migrations lie.

    >>> backups_folder(Path("/srv/ai-proxy/ai-proxy.db"))
    PosixPath('/srv/ai-proxy/backups')
    """
    return database.parent / "backups"


def back_up_before(database: Path, revision: str) -> Path:
    """Copy a database before it is migrated to a revision; return the copy.

    Raises:
        StoreError: It cannot be copied.
    """
    folder = backups_folder(database)
    moment = datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    target = folder / f"before-{revision}-{moment}.db"
    with explained(str(folder)):
        make_folders(folder)
    copy_database(database, target)
    for old in sorted(folder.glob("before-*.db"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()
    return target


def copy_database(source: Path, target: Path) -> None:
    """Copy a database to a new file of the owner's: all of it, or nothing.

    Raises:
        StoreError: It cannot be read, or the copy not written.
    """
    partial = target.with_name(f"{target.name}.partial")
    with explained(str(target)):
        try:
            os.close(private_opener(os.fspath(partial), os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
            with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(partial)) as new:
                old.backup(new)
                new.execute("PRAGMA journal_mode = DELETE")
            fsync_path(partial)
            partial.replace(target)
            fsync_path(target.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def sole_use(database: Path) -> Iterator[None]:
    """Lock a database: no other process has it open, and none can open it meanwhile.

    A connection to a database in WAL mode holds a shared lock on it until it is closed; a damaged file can be
    locked, too (sqlite.org/fileformat2.html, section 1.4).

    Raises:
        StoreUnavailableError: Another process has it open.
        StoreError: It cannot be opened.
    """
    if not database.exists():
        yield
        return
    with explained(str(database)):
        descriptor = os.open(database, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
        except OSError as error:
            raise StoreUnavailableError(
                f"the store {database} is in use; end the ai-proxy that runs on it, then try again"
            ) from error
        yield
    finally:
        os.close(descriptor)


def database_problems(file: Path, patience: float | None = None) -> Sequence[str]:
    """Return what is wrong with a database file; nothing when it is sound.

    Args:
        file: Is only read.
        patience: Seconds after which to give up; None for as long as it takes.

    Raises:
        TimeoutError: It is too large for that.
    """
    if not file.is_file():
        return [f"{file} does not exist"]
    try:
        with _reading(file) as found:
            deadline = None if patience is None else time.monotonic() + patience
            found.set_progress_handler(lambda: deadline is not None and time.monotonic() > deadline, 10_000)
            rows = found.execute("PRAGMA integrity_check(10)").fetchall()
            known = found.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    except StoreError as error:
        if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise TimeoutError from error
        return [error.detail]
    problems = [row[0] for row in rows if row[0] != "ok"]
    return problems or ([] if known else [f"{file} is not a database of ai-proxy"])


def schema_in(file: Path) -> str:
    """Return the revision of a database's schema.

    Raises:
        StoreError: It cannot be read, or is not ours.
    """
    with _reading(file) as found:
        row = found.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None:
        raise StoreDamagedError(f"{file} is not a database of ai-proxy")
    return str(row[0])


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    address = f"{file.absolute().as_uri()}?mode=ro"
    with explained(str(file)), closing(sqlite3.connect(address, uri=True)) as found:
        yield found
