"""The data directory: it holds what outlives the proxy, for the owner only."""

import contextlib
import hashlib
import os
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from ai_proxy.platform.private_files import FOLDER_MODE, make_folders, private_opener, set_mode
from ai_proxy.platform.run_folder import RunDirError


class DataDirError(RunDirError):
    """The data directory cannot be used; the message says why and what to do."""

    code = "data_dir_unusable"


def data_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory, which may not exist yet.

    >>> data_folder({"AI_PROXY_DATA_DIR": "/srv/ai-proxy"})
    PosixPath('/srv/ai-proxy')
    """
    return Path(env.get("AI_PROXY_DATA_DIR") or platformdirs.user_data_path("ai-proxy", appauthor=False))


def private_data_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory, made by `claim_data_folder`.

    Raises:
        DataDirError: It cannot be made, is no folder, or others may write to it.
    """
    folder = data_folder(env)
    try:
        claim_data_folder(folder)
    except OSError as error:
        raise DataDirError(
            f"cannot use the data directory {folder}: {error.strerror}; choose another with AI_PROXY_DATA_DIR"
        ) from error
    return folder


def claim_data_folder(folder: Path) -> None:
    """Create the data directory if it is missing, and make it private to its owner.

    Whoever may write to it could put a store and a pepper of their own there, so such a folder is refused.
    One that others may only read gets mode 0700.

    Raises:
        DataDirError: It is no folder, or others may write to it.
        OSError: It cannot be created, or its mode cannot be changed.
    """
    make_folders(folder)
    _check_own(folder)
    set_mode(folder, FOLDER_MODE)


def _check_own(folder: Path) -> None:
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise DataDirError(f"{folder} is not a folder; choose another with AI_PROXY_DATA_DIR")
    if found.st_uid != os.geteuid():
        raise DataDirError(
            f"the data directory {folder} belongs to another user (uid {found.st_uid}); run ai-proxy as that"
            " user, or choose another with AI_PROXY_DATA_DIR"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise DataDirError(
            f"other users may write to the data directory {folder} (mode {stat.S_IMODE(found.st_mode):o}) and"
            f" may have changed its files; check them, then run 'chmod 700 {folder}'"
        )


def owner_id(folder: Path, env: Mapping[str, str] = os.environ) -> str:
    """Return the id that marks what an instance starts as its own, such as containers; survives a reboot.

    It is derived from an id of this installation, kept in the data directory, and the instance's folder.

    Raises:
        DataDirError: The installation's id can be neither read nor written.
    """
    file = private_data_folder(env) / "installation-id"
    try:
        with (
            contextlib.suppress(FileExistsError),
            open(file, "x", encoding="ascii", opener=private_opener) as fresh,
        ):
            fresh.write(uuid.uuid4().hex)
        installation = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise DataDirError(
            f"cannot store the installation's id in {file.parent}: {error.strerror}; choose another data"
            " directory with AI_PROXY_DATA_DIR"
        ) from error
    return hashlib.sha256(f"{installation}:{folder}".encode()).hexdigest()[:16]
