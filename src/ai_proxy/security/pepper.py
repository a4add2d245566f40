"""The pepper: a secret beside the store, without which the digests in the store are useless."""

import errno
import hashlib
import os
import secrets
from pathlib import Path

from ai_proxy.core.errors import StoreDamagedError, StoreFullError, StoreReadOnlyError
from ai_proxy.core.keys import PEPPER_BYTES
from ai_proxy.core.store_ports import SettingStore
from ai_proxy.platform.private_files import make_folders, private_opener

FILE_NAME = "pepper"
SETTING = "security.pepper_fingerprint"


def load_pepper(folder: Path, *, may_make: bool = True) -> bytes:
    """Return the pepper in the data directory; created the first time, readable by the owner only.

    Args:
        folder: The data directory.
        may_make: Whether a missing one may be made: not where there are keys, which need the one they have.

    Raises:
        StoreReadOnlyError: It cannot be read, or not written.
        StoreFullError: The disk is full.
        StoreDamagedError: The file does not hold a pepper.
    """
    file = folder / FILE_NAME
    try:
        make_folders(folder)
        if not file.exists():
            if not may_make:
                raise StoreDamagedError(
                    f"the pepper {file} is missing, and no API key in the store works without it; restore it"
                    " from a backup, or copy it from the machine where the keys were created"
                )
            _make(file)
        pepper = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreFullError(f"cannot write {file}: the disk is full; free some space") from error
        raise StoreReadOnlyError(
            f"cannot use the pepper {file}: {error.strerror}; give this user the right to read and write"
            " it, or choose another folder with AI_PROXY_DATA_DIR"
        ) from error
    except ValueError:
        pepper = b""
    if len(pepper) != PEPPER_BYTES:
        raise StoreDamagedError(
            f"{file} does not hold a pepper; restore it from a backup, or remove it to void every API key"
        )
    return pepper


async def check_pepper(settings: SettingStore, pepper: bytes, *, has_keys: bool) -> None:
    """Check that the keys in a store were made with this pepper: with another, none would be found.

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
    """Write a new pepper, unless another process was faster."""
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
