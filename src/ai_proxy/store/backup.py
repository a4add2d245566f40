"""Copies of a SQLite database, whole and consistent also while it is written to."""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ai_proxy.core.errors import StoreDamagedError, StoreError
from ai_proxy.store.failures import explained

KEPT = 5
"""Copies from before migrations that are kept."""


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
        folder.mkdir(mode=0o700, exist_ok=True)
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
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(partial)) as new:
                old.backup(new)
                new.execute("PRAGMA journal_mode = DELETE")
            _to_disk(partial)
            partial.replace(target)
            _to_disk(target.parent)
        finally:
            partial.unlink(missing_ok=True)


def restore_database(backup: Path, database: Path) -> Path | None:
    """Put a copy in the place of a database, on which no proxy may run; return where that was moved to.

    Raises:
        StoreError: The copy is not sound, or the files cannot be moved.
    """
    problems = database_problems(backup)
    if problems:
        raise StoreDamagedError(f"{backup} cannot be restored: {problems[0]}; choose another backup")
    fresh = database.with_name(f"{database.name}.restored")
    copy_database(backup, fresh)
    with explained(str(database)):
        aside = _set_aside(database)
        fresh.replace(database)
        _to_disk(database.parent)
    return aside


def _set_aside(database: Path) -> Path | None:
    """Give a database a second name, and its journal too; that of a sound one is empty by then."""
    if not database.exists():
        return None
    with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(database)) as found:
        found.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    moment = datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = database.with_name(f"{database.name}.before-restore-{moment}")
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + suffix).replace(aside.with_name(aside.name + suffix))
    aside.hardlink_to(database)
    return aside


def database_problems(file: Path) -> Sequence[str]:
    """Say what is wrong with a database file; nothing when it is sound."""
    if not file.is_file():
        return [f"{file} does not exist"]
    try:
        address = f"{file.absolute().as_uri()}?mode=ro"
        with explained(str(file)), closing(sqlite3.connect(address, uri=True)) as found:
            rows = found.execute("PRAGMA integrity_check(10)").fetchall()
            known = found.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    except StoreError as error:
        return [error.detail]
    problems = [row[0] for row in rows if row[0] != "ok"]
    return problems or ([] if known else [f"{file} holds nothing of ai-proxy's"])


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
