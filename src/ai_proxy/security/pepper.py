"""The pepper: a secret beside the store, without which the digests in it tell nothing."""

import errno
import hashlib
import os
import secrets
from pathlib import Path

from ai_proxy.core.errors import StoreDamagedError, StoreFullError, StoreReadOnlyError
from ai_proxy.core.keys import PEPPER_BYTES
from ai_proxy.core.store_ports import SettingStore
from ai_proxy.platform.data_folder import private_opener

FILE_NAME = "pepper"
SETTING = "security.pepper_fingerprint"


def load_pepper(folder: Path) -> bytes:
    """Return the pepper kept in the data directory, making it the first time, for the owner only.

    Raises:
        StoreReadOnlyError: It can be neither read nor kept.
        StoreFullError: There is no room for it.
        StoreDamagedError: The file holds something else.
    """
    file = folder / FILE_NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            _make(file)
        pepper = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreFullError(f"there is no room for {file}; make room on its disk") from error
        raise StoreReadOnlyError(
            f"the pepper {file} cannot be used: {error.strerror}; give this user the right to read and write"
            " it, or choose another folder with AI_PROXY_DATA_DIR"
        ) from error
    except ValueError:
        pepper = b""
    if len(pepper) != PEPPER_BYTES:
        raise StoreDamagedError(
            f"{file} holds no pepper; restore it from a backup, or remove it: every API key is then void"
        )
    return pepper


async def check_pepper(settings: SettingStore, pepper: bytes, *, has_keys: bool) -> None:
    """Make sure that the keys in a store were made with this pepper: with another, none would be known.

    Raises:
        StoreDamagedError: They were made with another.
    """
    mark = hashlib.sha256(b"fingerprint" + pepper).hexdigest()[:16]
    kept = await settings.get(SETTING)
    if kept == mark:
        return
    if kept is not None and has_keys:
        raise StoreDamagedError(
            f"the file {FILE_NAME!r} in the data directory is not the one that the store's API keys were made"
            " with; put that one back, from a backup or from the machine where they were made"
        )
    await settings.put(SETTING, mark)


def _make(file: Path) -> None:
    """Write a new pepper; whoever comes second takes what is there."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with open(fresh, "x", encoding="ascii", opener=private_opener) as out:
            out.write(f"{secrets.token_hex(PEPPER_BYTES)}\n")
            out.flush()
            os.fsync(out.fileno())
        file.hardlink_to(fresh)
    except FileExistsError:
        return
    finally:
        fresh.unlink(missing_ok=True)
