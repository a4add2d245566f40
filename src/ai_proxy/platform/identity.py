"""Who this installation is, so that what it starts is known as its own."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from ai_proxy.platform.data_folder import data_folder
from ai_proxy.platform.run_folder import RunDirError


def owner_id(folder: Path, env: Mapping[str, str] = os.environ) -> str:
    """Return what tells this instance's containers from those of every other proxy, also after a reboot.

    It is made of an id of this installation, kept in the data directory, and of the instance's folder.

    Raises:
        RunDirError: The id can be neither read nor kept.
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
