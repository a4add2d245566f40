"""Files that only their owner may read, and that last."""

import os
from pathlib import Path


def for_owner(path: str, flags: int) -> int:
    """Open a file that only its owner may read from its first moment on; the `opener` of `open`."""
    return os.open(path, flags, 0o600)


def to_disk(path: Path) -> None:
    """Have what was written to a file, or put into a folder, survive a loss of power.

    Raises:
        OSError: It cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
