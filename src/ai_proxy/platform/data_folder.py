"""The data directory, and files that only their owner may read."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from ai_proxy.platform.run_folder import RunDirError


def data_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory, which may not exist yet.

    >>> data_folder({"AI_PROXY_DATA_DIR": "/srv/ai-proxy"})
    PosixPath('/srv/ai-proxy')
    """
    return Path(env.get("AI_PROXY_DATA_DIR") or platformdirs.user_data_path("ai-proxy", appauthor=False))


def owner_id(folder: Path, env: Mapping[str, str] = os.environ) -> str:
    """Return the id that marks what an instance starts as its own, such as containers; survives a reboot.

    It is derived from an id of this installation, kept in the data directory, and the instance's folder.

    Raises:
        RunDirError: The installation's id can be neither read nor written.
    """
    data = data_folder(env)
    file = data / "installation-id"
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), file.open("x", encoding="ascii") as fresh:
            fresh.write(uuid.uuid4().hex)
        installation = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise RunDirError(
            f"cannot keep an id in {data}: {error.strerror}; choose another folder with AI_PROXY_DATA_DIR"
        ) from error
    return hashlib.sha256(f"{installation}:{folder}".encode()).hexdigest()[:16]


def private_opener(path: str, flags: int) -> int:
    """Open a file with mode 0600 from its creation on; the `opener` argument of `open`."""
    return os.open(path, flags, 0o600)


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
