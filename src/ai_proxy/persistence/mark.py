"""A file beside the store that says that the store secures something: without it, a lost store looks new."""

from pathlib import Path

from ai_proxy.core.errors import StoreDamagedError
from ai_proxy.platform.private_files import fsync_path, make_folders, private_opener

FILE_NAME = "secured"
_TEXT = """\
API keys were made here, or a policy was set. While this file is there, ai-proxy serves nobody from a store
that holds neither: it was lost. 'ai-proxy security accept-loss' begins without them.
"""


class SecuredMark:
    """Remembers, apart from the database, that API keys were made or a policy was set.

    Args:
        folder: The data directory.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME

    def __repr__(self) -> str:
        return f"<SecuredMark [{self._file}: {'set' if self.is_set else 'not set'}]>"

    @property
    def is_set(self) -> bool:
        """Whether keys were made or a policy was set."""
        return self._file.exists()

    def set(self) -> None:
        """Remember it; on return it is on disk.

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
        """Forget it."""
        self._file.unlink(missing_ok=True)


def lost(where: str) -> StoreDamagedError:
    """Return the error for a store that held keys or a policy, and is empty.

    Args:
        where: The store, as people know it: a path, or a URL without its password.
    """
    return StoreDamagedError(
        f"the store {where} was deleted, emptied or replaced: it holds no API key and no policy, though there"
        " were some; run 'ai-proxy backup restore', or 'ai-proxy security accept-loss' to begin without them"
    )
