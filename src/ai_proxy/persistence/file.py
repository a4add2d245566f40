"""SQLite's file, which belongs to the owner alone."""

import os
from pathlib import Path

from ai_proxy.core.errors import StoreReadOnlyError

FILE_NAME = "ai-proxy.db"
"""In the data directory."""


def make_private(path: Path) -> None:
    """Make a database's folder and file, for the owner only; SQLite's files beside it inherit that.

    Raises:
        StoreReadOnlyError: They can be neither made nor written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(None, "the folder may not be written")
    except OSError as error:
        raise StoreReadOnlyError(
            f"the store {path} cannot be used: {error.strerror}; give this user the right to write the file"
            " and its folder, or choose another folder with AI_PROXY_DATA_DIR"
        ) from error
