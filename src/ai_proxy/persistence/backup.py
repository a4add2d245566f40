"""Backups: one file with the database, the pepper, the id of this installation and its TLS keys."""

import contextlib
import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from ai_proxy.core.errors import ProxyError, StoreDamagedError, StoreNewerError
from ai_proxy.persistence.database import FILE_NAME
from ai_proxy.persistence.file import copy_database, database_problems, schema_in, sole_use
from ai_proxy.persistence.mark import SecuredMark
from ai_proxy.persistence.migrate import MIGRATIONS
from ai_proxy.platform.private_files import fsync_path, make_folders, private_opener

FORMAT = 1
"""Of the archive; a change that older programs cannot read raises it."""
ROOT = PurePosixPath("ai-proxy-backup")
"""Folder in the archive that holds everything."""
MANIFEST = "manifest.json"
MAX_MANIFEST = 1024 * 1024
"""Bytes."""

JOURNALS = ("-wal", "-shm")
"""What SQLite has beside a database."""
SINGLE_FILES = ("pepper", "installation-id")
TLS = "tls"


class BackupError(ProxyError):
    """A backup cannot be created or restored; the detail gives the reason and what to do."""

    code, title = "backup_failed", "Backup failed"


@dataclass(frozen=True, slots=True)
class Content:
    """A file in an archive; its size is in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of an archive.

    Attributes:
        format: As FORMAT.
        program: Version of ai-proxy that made it.
        schema: Revision of the database's schema; None without a database.
        created: When, as ISO 8601.
        files: Every file, by its path in the data directory.
    """

    format: int
    program: str
    schema: str | None
    created: str
    files: Mapping[str, Content]


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore.

    Attributes:
        manifest: Of the archive; None for a bare copy of a database.
        files: The files that were restored.
        replaced: Folder that keeps the files that were there before; None when there were none.
    """

    manifest: Manifest | None
    files: tuple[str, ...]
    replaced: Path | None


def create_backup(data: Path, target: Path, *, database: Path | None, program: str, now: float) -> Manifest:
    """Write a backup to a new file of the owner's, all of it or nothing.

    Args:
        data: The data directory; a proxy may be running on it.
        target: The file, which must not exist.
        database: As `persistence.database.database_file` returns it.
        program: Version of this program.
        now: Seconds since the epoch.

    Raises:
        BackupError: The data directory is empty, or the backup cannot be written.
        StoreError: The database cannot be copied, or is damaged.
    """
    if target.exists():
        raise BackupError(f"{target} exists already; name another file, or remove it first")
    with _explained(f"the backup {target} cannot be written"), _staging(target.parent) as staging:
        schema = _gather(data, database, staging)
        files = _contents(staging)
        if not files:
            raise BackupError(f"{data} holds nothing yet; see that AI_PROXY_DATA_DIR names the right folder")
        created = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        manifest = Manifest(FORMAT, program, schema, created, files)
        partial = staging / "archive"
        with open(partial, "xb", opener=private_opener) as out:
            _pack(out, manifest, staging, int(now))
            out.flush()
            os.fsync(out.fileno())
        partial.rename(target)
        fsync_path(target.parent)
    return manifest


def _gather(data: Path, database: Path | None, staging: Path) -> str | None:
    """Copy the files of a backup, and return the revision of the database's schema."""
    for name in SINGLE_FILES:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(data / name, staging / name)
    for file in sorted((data / TLS).rglob("*")):
        inside = file.relative_to(data)
        if file.is_file() and file.name != "lock" and not file.name.startswith("."):
            (staging / inside).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # replaced meanwhile by a renewal
                shutil.copyfile(file, staging / inside)
    if database is None or not database.exists():
        return None
    copy_database(database, staging / FILE_NAME)
    _check_sound(staging / FILE_NAME, database)
    return schema_in(staging / FILE_NAME)


def _contents(folder: Path) -> dict[str, Content]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): _content(file) for file in files}


def _content(file: Path) -> Content:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Content(digest, file.stat().st_size)


def _pack(out: IO[bytes], manifest: Manifest, folder: Path, now: int) -> None:
    """Write the manifest first: a reader learns from it which files may follow."""
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        text = msgspec.json.format(msgspec.json.encode(manifest))
        archive.addfile(_member(MANIFEST, len(text), now), BytesIO(text))
        for name, content in manifest.files.items():
            with (folder / name).open("rb") as file:
                archive.addfile(_member(name, content.size, now), file)


def _member(name: str, size: int, now: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(str(ROOT / name))
    member.size, member.mtime, member.mode = size, now, 0o600
    return member


def restore_backup(file: Path, data: Path, *, database: Path | None, force: bool, now: float) -> Restored:
    """Restore a backup to the data directory; the files that were there are kept in a folder.

    Everything is unpacked and checked before anything is touched.

    Args:
        file: As `create_backup` writes it, or a bare copy of a database from before a migration.
        data: The data directory, on which no proxy may run.
        database: As `persistence.database.database_file` returns it.
        force: Whether to replace files that are there already.
        now: Seconds since the epoch.

    Raises:
        BackupError: The backup cannot be used, or files are there already; nothing has changed.
        StoreError: Its database is damaged or of a newer version, or the present one is in use.
    """
    with _explained(f"{data} cannot be written"):
        make_folders(data)
    with _explained(f"{file} cannot be restored to {data}"), _staging(data) as staging:
        manifest = _unpack(file, staging)
        _check_place(file, manifest, database)
        if (staging / FILE_NAME).exists():
            _check_database(staging / FILE_NAME, file)
        replaced = data / f"before-restore-{file_moment(now)}"
        places = _places(data, database, whole=manifest is not None)
        there = [(place, replaced / place.name) for place in places.values() if place.exists()]
        coming = [(staging / name, place) for name, place in places.items() if (staging / name).exists()]
        if there and not force:
            raise BackupError(
                f"{data} is in use already: there is {', '.join(place.name for place, _ in there)}; --force"
                " restores the backup all the same, and keeps these files in a folder"
            )
        with sole_use(database) if database else contextlib.nullcontext(), _never_new(data):
            _move_all([*there, *coming])
        return Restored(
            manifest, tuple(manifest.files) if manifest else (FILE_NAME,), replaced if there else None
        )


@contextmanager
def _never_new(data: Path) -> Iterator[None]:
    """Keep whoever opens the store during a restore from taking it for a new one, open to everybody."""
    mark = SecuredMark(data)
    was_set = mark.is_set
    mark.set()
    try:
        yield
    finally:
        if not was_set:
            mark.remove()


def _places(data: Path, database: Path | None, *, whole: bool) -> dict[str, Path]:
    """Return the path of everything that a backup replaces, by its name in the backup."""
    places = {name: data / name for name in (*SINGLE_FILES, TLS)} if whole else {}
    if database is not None:
        places[FILE_NAME] = database
        places |= {f"{FILE_NAME}{end}": database.with_name(f"{database.name}{end}") for end in JOURNALS}
    return places


def _move_all(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move files and folders, all of them or none.

    What is there goes into a folder within the data directory: that one may be a volume of its own, with
    nothing writable around it.
    """
    with contextlib.ExitStack() as undo:
        for source, target in moves:
            if not target.parent.exists():
                make_folders(target.parent)
                undo.callback(target.parent.rmdir)
            shutil.move(source, target)
            undo.callback(shutil.move, target, source)
        for folder in {path.parent for move in moves for path in move}:
            fsync_path(folder)
        undo.pop_all()


def _unpack(file: Path, folder: Path) -> Manifest | None:
    """Unpack an archive, or copy a bare database; return the manifest of the archive.

    Raises:
        BackupError: It is not a backup, or was truncated or changed.
    """
    try:
        with file.open("rb") as start:
            is_database = start.read(16) == b"SQLite format 3\0"
    except OSError as error:
        raise BackupError(f"cannot read {file}: {error.strerror}; name a backup") from error
    if is_database:
        copy_database(file, folder / FILE_NAME)
        return None
    try:
        with tarfile.open(file, "r:gz") as archive:
            manifest = _read_manifest(archive, file)
            _extract(archive, manifest, folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _foreign(file, str(error)) from error
    if _contents(folder) != dict(manifest.files):
        raise _foreign(file, "its files differ from its manifest")
    for unpacked in folder.rglob("*"):
        unpacked.chmod(0o700 if unpacked.is_dir() else 0o600)
        fsync_path(unpacked)
    return manifest


def _read_manifest(archive: tarfile.TarFile, file: Path) -> Manifest:
    member = archive.next()
    named = member is not None and member.name == str(ROOT / MANIFEST) and member.size <= MAX_MANIFEST
    content = archive.extractfile(member) if member is not None and named else None
    if content is None:
        raise _foreign(file, "it does not begin with a manifest")
    try:
        manifest = msgspec.json.decode(content.read(), type=Manifest)
    except msgspec.MsgspecError as error:
        raise _foreign(file, f"cannot read its manifest: {error}") from error
    if manifest.format > FORMAT:
        raise BackupError(
            f"{file} was made by ai-proxy {manifest.program}, in a format that this one does not know yet;"
            " install that version, or a newer one"
        )
    if strange := [name for name in manifest.files if not is_expected(name)]:
        raise _foreign(file, f"it holds {strange[0]!r}")
    return manifest


def is_expected(name: str) -> bool:
    """Tell whether a path is one that a backup may hold.

    >>> [is_expected(name) for name in ("pepper", "tls/acme/x/account.pem", "ai-proxy.db")]
    [True, True, True]
    >>> [is_expected(name) for name in ("/etc/passwd", "tls/../pepper", "tls", "tls/", "ai-proxy.db-wal")]
    [False, False, False, False, False]
    """
    path = PurePosixPath(name)
    if str(path) != name or ".." in path.parts:
        return False
    return name in (FILE_NAME, *SINGLE_FILES) or (path.parts[0] == TLS and len(path.parts) > 1)


def _extract(archive: tarfile.TarFile, manifest: Manifest, folder: Path) -> None:
    """Unpack the files that the manifest names, which must be plain files within the folder.

    Raises:
        tarfile.TarError: The archive holds something else.
    """
    while (member := archive.next()) is not None:
        name = member.name.removeprefix(f"{ROOT}/")
        content = manifest.files.get(name)
        if content is None or not member.isreg() or member.size != content.size:
            raise tarfile.ReadError(f"{member.name!r} differs from the manifest")
        member.name = name
        archive.extract(member, folder, filter="data")


def _check_place(file: Path, manifest: Manifest | None, database: Path | None) -> None:
    holds = manifest is None or FILE_NAME in manifest.files
    if holds and database is None:
        raise BackupError(
            f"{file} holds a database, and the configuration names another with store.url; restore it with a"
            " configuration that does not"
        )
    if database is not None and not holds:
        raise BackupError(
            f"{file} holds no database: it was made where that is in PostgreSQL; name it with store.url"
            " in the configuration"
        )


def _check_database(database: Path, file: Path) -> None:
    _check_sound(database, file)
    found = schema_in(database)
    if found > MIGRATIONS.head:
        raise StoreNewerError(
            f"{file} was made by a newer ai-proxy: its schema is {found}, and this one knows those up to"
            f" {MIGRATIONS.head}; install the newer one, then restore"
        )


def _check_sound(database: Path, shown: Path) -> None:
    if problems := database_problems(database):
        raise StoreDamagedError(f"{shown} is damaged: {problems[0]}; use a backup that is sound")


def _foreign(file: Path, reason: str) -> BackupError:
    return BackupError(
        f"{file} is not a sound backup of ai-proxy ({reason}); nothing has changed, choose another"
    )


def file_moment(now: float) -> str:
    """Return a moment as file names contain it.

    >>> file_moment(1_700_000_000)
    '20231114T221320Z'
    """
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Make a temporary folder of the owner's."""
    with tempfile.TemporaryDirectory(dir=parent, prefix=".ai-proxy-") as folder:
        yield Path(folder)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupError(
            f"{what}: {error.strerror or error}; make room there, or see who may write"
        ) from error
