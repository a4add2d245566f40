"""Checks of the data directory and the run directory: permissions and free space."""

import asyncio
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_proxy.core.settings import MB
from ai_proxy.doctor.finding import Finding, Level, ok, problem, warning
from ai_proxy.doctor.installation import Installation
from ai_proxy.platform.run_folder import RunDirError, check_socket_path

DATA, RUN = "data directory", "run directory"
LITTLE, SCARCE = 10 * MB, 200 * MB
"""Free bytes on the disk below which writes are about to fail, and below which they may fail soon."""
PUBLIC = frozenset({"installation-id"})
"""Files without secrets."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Metadata of a file or folder.

    Attributes:
        path: Its path.
        folder: Whether it is a folder.
        owner: User id of its owner.
        mode: Its permissions.
    """

    path: Path
    folder: bool
    owner: int
    mode: int


def classify_entry(subject: str, entry: Entry, user: int) -> Finding | None:
    """Return what is wrong with a file or folder that must be private to the user; None for nothing."""
    if entry.owner != user:
        text = f"{entry.path} belongs to another user (uid {entry.owner})"
        return problem(subject, text, f"run ai-proxy as that user, or: chown {user} {entry.path}")
    wanted = 0o700 if entry.folder else 0o600
    if entry.mode & 0o077 == 0 and entry.mode & wanted == wanted:
        return None
    text = f"{entry.path} has mode {entry.mode:o}: " + (
        "others can access it" if entry.mode & 0o077 else "its owner cannot access it"
    )
    fix = f"chmod {wanted:o} {entry.path}, or: ai-proxy check --fix"
    return Finding(subject, Level.PROBLEM, text, fix, entry.path, wanted)


def classify_space(folder: Path, free: int) -> Finding | None:
    """Return a finding when the disk is almost full; None otherwise."""
    shown = f"{free / MB:.0f} MB free on the disk of {folder}"
    if free < LITTLE:
        return problem(DATA, f"only {shown}: keys and revocations cannot be saved", "free space on it")
    if free < SCARCE:
        return warning(DATA, f"only {shown}", "free space on it")
    return None


async def check_data_folder(installation: Installation) -> Sequence[Finding]:
    """Check the data directory and everything in it."""
    return await asyncio.to_thread(_data_findings, installation.data)


def _data_findings(data: Path) -> Sequence[Finding]:
    if not data.exists():
        above = next(parent for parent in data.parents if parent.exists())
        if not _is_writable(above):
            fix = "create it and make this user its owner, or choose another with AI_PROXY_DATA_DIR"
            return [problem(DATA, f"{data} does not exist and cannot be created", fix)]
        return [ok(DATA, f"{data} does not exist yet; the first start creates it")]
    if not data.is_dir():
        return [problem(DATA, f"{data} is not a folder", "choose another with AI_PROXY_DATA_DIR")]
    findings = _judge_all(DATA, _entries(data))
    if not _is_writable(data):
        fix = "give this user write permission, or choose another with AI_PROXY_DATA_DIR"
        findings.append(problem(DATA, f"{data} is not writable", fix))
    if space := classify_space(data, shutil.disk_usage(data).free):
        findings.append(space)
    return findings or [ok(DATA, f"{data} is private to this user and writable")]


def _judge_all(subject: str, entries: Iterable[Entry]) -> list[Finding]:
    user = os.geteuid()
    return [finding for entry in entries if (finding := classify_entry(subject, entry, user))]


def _entries(data: Path) -> Iterator[Entry]:
    yield _entry(data)
    for path in sorted(data.rglob("*")):
        if path.name not in PUBLIC and not path.is_symlink():
            yield _entry(path)


def _entry(path: Path) -> Entry:
    found = path.lstat()
    return Entry(path, stat.S_ISDIR(found.st_mode), found.st_uid, stat.S_IMODE(found.st_mode))


def _is_writable(folder: Path) -> bool:
    """Return whether a folder is writable, also considering a read-only file system."""
    return os.access(folder, os.W_OK | os.X_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY


async def check_run_folder(installation: Installation) -> Sequence[Finding]:
    """Check the run directory, which holds the sockets."""
    base, port = installation.run, installation.config.server.port
    try:
        check_socket_path(base.absolute() / str(port) / "gateway.sock")
    except RunDirError as error:
        return [problem(RUN, str(error), "set AI_PROXY_RUN_DIR to a short path, such as /run/ai-proxy")]
    if not base.exists():
        return [ok(RUN, f"{base} does not exist yet; the first start creates it")]
    folders = [path for path in base.iterdir() if path.name.isdecimal() and path.is_dir()]
    found = _judge_all(RUN, map(_entry, (base, *sorted(folders))))
    return found or [ok(RUN, f"{base} is private to this user")]


def repair(findings: Iterable[Finding]) -> list[Path]:
    """Fix the modes of files and folders; return the changed paths.

    Raises:
        OSError: A mode cannot be changed.
    """
    changed = [(finding.path, finding.mode) for finding in findings if finding.path is not None]
    for path, mode in changed:
        path.chmod(mode)
    return [path for path, _ in changed]
