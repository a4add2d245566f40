"""Failures of a database, as errors that say what to do."""

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ai_proxy.core.errors import (
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

RETRY_AFTER = 5.0
"""Seconds after which a store that is busy or away is worth another try."""


@contextmanager
def explained(where: str, errors: tuple[type[Exception], ...] = (sqlite3.Error, OSError)) -> Iterator[None]:
    """Raise the failures of a database as StoreErrors.

    Args:
        where: The store, as people know it: a path, or a URL without its password.
        errors: What the database's driver raises.

    Raises:
        StoreError: The kind that fits.
    """
    try:
        yield
    except errors as error:
        raise explain(where, error) from error


def explain(where: str, error: Exception) -> StoreError:
    """Return the StoreError for a failure."""
    if code := getattr(error, "sqlite_errorcode", None):
        make = _SQLITE.get(code) or _SQLITE.get(code & 0xFF, _failed)
    elif state := getattr(error, "sqlstate", None):
        make = _POSTGRES.get(state) or _POSTGRES_CLASSES.get(state[:2], _failed)
    elif isinstance(error, OSError):
        make = _OS.get(error.errno or 0, _unavailable)
    else:  # psycopg gives no state where it got no answer from the server
        make = _unavailable if hasattr(error, "sqlstate") else _failed
    return make(where, str(error).strip().partition("\n")[0])  # PostgreSQL adds the values in further lines


def _failed(where: str, reason: str) -> StoreError:
    return StoreError(f"the store {where} failed: {reason}; run 'ai-proxy check'")


def _unavailable(where: str, reason: str) -> StoreError:
    return StoreUnavailableError(
        f"cannot reach the store {where}: {reason}; check that its server runs and accepts this user",
        retry_after=RETRY_AFTER,
    )


def _busy(where: str, reason: str) -> StoreError:
    return StoreUnavailableError(
        f"another program holds the store {where} ({reason}); end that program, or try again",
        retry_after=RETRY_AFTER,
    )


def _full(where: str, reason: str) -> StoreError:
    return StoreFullError(
        f"the disk of the store {where} is full ({reason}); free some space, nothing written so far is lost"
    )


def _read_only(where: str, reason: str) -> StoreError:
    return StoreReadOnlyError(
        f"cannot write the store {where} ({reason}); give this user the right to write the file and its"
        " folder, or choose another folder with AI_PROXY_DATA_DIR"
    )


def _damaged(where: str, reason: str) -> StoreError:
    return StoreDamagedError(
        f"the store {where} is damaged ({reason}); run 'ai-proxy backup restore', or move the file away and"
        " run 'ai-proxy security accept-loss' to start without its keys"
    )


_SQLITE: dict[int, Callable[[str, str], StoreError]] = {
    sqlite3.SQLITE_BUSY: _busy,
    sqlite3.SQLITE_LOCKED: _busy,
    sqlite3.SQLITE_FULL: _full,
    sqlite3.SQLITE_IOERR_SHMSIZE: _full,
    sqlite3.SQLITE_READONLY: _read_only,
    sqlite3.SQLITE_PERM: _read_only,
    sqlite3.SQLITE_CANTOPEN: _read_only,
    sqlite3.SQLITE_CORRUPT: _damaged,
    sqlite3.SQLITE_NOTADB: _damaged,
}
"""By result code, else by its primary one (sqlite.org/rescode.html)."""

_OS: dict[int, Callable[[str, str], StoreError]] = {
    errno.ENOSPC: _full,
    errno.EDQUOT: _full,
    errno.EROFS: _read_only,
    errno.EACCES: _read_only,
    errno.EPERM: _read_only,
}
"""By error number; the others are of a server that is away."""

_POSTGRES: dict[str, Callable[[str, str], StoreError]] = {
    "25006": _read_only,
    "42501": _read_only,
    "53100": _full,
    "55P03": _busy,
    "57014": _busy,
    "3D000": _unavailable,
}
_POSTGRES_CLASSES: dict[str, Callable[[str, str], StoreError]] = {
    "08": _unavailable,
    "28": _unavailable,
    "53": _unavailable,
    "57": _unavailable,
    "XX": _damaged,
}
"""By error code, else by its class (PostgreSQL documentation, appendix A)."""
