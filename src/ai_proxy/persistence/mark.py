"""A file beside the store that tells a lost store from a new one."""

from pathlib import Path

from ai_proxy.core.errors import StoreDamagedError
from ai_proxy.platform.private_files import fsync_path, make_folders, private_opener

FILE_NAME = "secured"
_TEXT = """\
API keys were created here, or a policy was set. While this file exists, ai-proxy refuses all clients if its
store holds neither, because the store was lost. Run 'ai-proxy security accept-loss' to start without them.
"""


class SecuredMark:
    """Records outside the database that API keys were created or a policy was set.

    Args:
        folder: The data directory.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME

    def __repr__(self) -> str:
        return f"<SecuredMark [{self._file}: {'set' if self.is_set else 'not set'}]>"

    @property
    def is_set(self) -> bool:
        """Whether keys were created or a policy was set."""
        return self._file.exists()

    def set(self) -> None:
        """Write the file; on return it is on disk.

        Raises:
            OSError: It cannot be written.
        """
        if self.is_set:
            return
        make_folders(self._file.parent)
        with open(self._file, "w", encoding="utf-8", opener=private_opener) as file:
            file.write(_TEXT)
        fsync_path(self._file)
        fsync_path(self._file.parent)

    def remove(self) -> None:
        """Remove the file, if it exists."""
        self._file.unlink(missing_ok=True)


def lost(where: str) -> StoreDamagedError:
    """Return the error for a store that is empty although it held keys or a policy.

    Args:
        where: Path of the store, or its URL without the password.
    """
    return StoreDamagedError(
        f"the store {where} was deleted, emptied or replaced: its API keys and policy are gone; run"
        " 'ai-proxy backup restore', or 'ai-proxy security accept-loss' to start without them"
    )
