"""Files and folders that only their owner may use, whatever the umask of the command that makes them."""

import contextlib
import os
import stat
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600


def make_folders(folder: Path) -> None:
    """Make a folder and its missing parents, each with mode 0700; leave what is there as it is.

    `Path.mkdir` would make the parents with the mode of the umask.

    Raises:
        OSError: It cannot be made.
    """
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=FOLDER_MODE, exist_ok=True)
        set_mode(missing, FOLDER_MODE)


def set_mode(path: Path, mode: int) -> None:
    """Give a file or folder a mode; do nothing where it has it, as on a read-only disk.

    Raises:
        OSError: The mode cannot be changed.
    """
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def private_opener(path: str, flags: int) -> int:
    """Open a file with mode 0600 from its creation on; the `opener` argument of `open`."""
    descriptor = os.open(path, flags, FILE_MODE)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) and mode & FILE_MODE != FILE_MODE:  # the umask took the owner's own rights
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, FILE_MODE)
    return descriptor


def fsync_path(path: Path) -> None:
    """Flush a file's content or a directory's entries to disk, so that they survive a power loss.

    Raises:
        OSError: The flush failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
