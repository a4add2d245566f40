"""Files that only their owner can read."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ai_proxy.platform.private_files import (
    FOLDER_MODE,
    fsync_path,
    make_folders,
    private_opener,
    set_mode,
)


def make_private_folder(folder: Path) -> None:
    """Create a folder and its parents with mode 0700.

    Raises:
        OSError: It cannot be created.
    """
    make_folders(folder)
    set_mode(folder, FOLDER_MODE)


def write_private(path: Path, content: bytes) -> None:
    """Write a file with mode 0600, atomically and durably.

    Raises:
        OSError: It cannot be written; the old content is unchanged.
    """
    make_private_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # has mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes: several proxies may share it.

    Raises:
        OSError: It cannot be locked.
    """
    make_private_folder(folder)
    descriptor = private_opener(os.fspath(folder / "lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
