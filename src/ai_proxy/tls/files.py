"""Files that only their owner can read."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ai_proxy.platform.data_folder import fsync_path


def make_private_folder(folder: Path) -> None:
    """Create a folder and its parents with mode 0700.

    Raises:
        OSError: It cannot be created.
    """
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)


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
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
