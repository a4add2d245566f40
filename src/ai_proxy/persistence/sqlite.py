"""SQLite as a driver of `Database`."""

import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ai_proxy.core.errors import StoreUnavailableError
from ai_proxy.core.ports import Clock

BUSY_PAUSE = 0.02
"""Seconds between two tries to switch a file to write-ahead logging."""
LOOK_EVERY = 0.5
"""Seconds between two looks for changes: a key revoked by another process is refused within a second."""


class Sqlite:
    """Implements `persistence.database.Driver`.

    Args:
        path: Of the file.
        foreign_keys: Whether references are checked.
        patience: Seconds to wait for another process that writes.
    """

    name = "sqlite"
    errors: tuple[type[Exception], ...] = (sqlite3.Error, OSError)
    lost: tuple[type[Exception], ...] = ()

    def __init__(self, path: Path, *, foreign_keys: bool, patience: float) -> None:
        self._path = path
        self._foreign_keys = foreign_keys
        self._patience = patience
        self._opened: tuple[int, int] | None = None

    def connect(self) -> sqlite3.Connection:
        """Open the file."""
        connection = self._open(self._patience)
        connection.row_factory = sqlite3.Row
        try:
            self._log_ahead(connection)
            # What is committed survives a power cut; NORMAL would lose the last commits.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA foreign_keys = {'ON' if self._foreign_keys else 'OFF'}")
        except sqlite3.Error:
            connection.close()
            raise
        self._opened = self._file()
        return connection

    def _open(self, patience: float) -> sqlite3.Connection:
        """Open the file, which must exist: an empty one created instead would admit everybody."""
        address = f"{self._path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(address, timeout=patience, autocommit=True, uri=True)

    def _log_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to write-ahead logging; SQLite does not wait while another connection does the same."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(BUSY_PAUSE)
            else:
                return

    def begin(self, connection: Any, *, writes: bool, patience: float) -> None:
        """Begin a transaction; `patience` holds for all its statements.

        Raises:
            StoreUnavailableError: The file that is open was deleted or replaced.
        """
        if writes:
            self._check_place()
        connection.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
        # Taking the lock at once avoids the deadlock of two readers that both want to write.
        connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    def _check_place(self) -> None:
        """Raise an error if the open file was deleted or replaced: what is written to it would be lost."""
        if self._file() != self._opened:
            raise StoreUnavailableError(
                f"the store {self._path} was deleted or replaced while it is in use, so nothing can be saved;"
                " restart the proxy"
            )

    def _file(self) -> tuple[int, int] | None:
        """Return what identifies the file; None when there is none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def statement(self, sql: str) -> str:
        """Return the statement as it is."""
        return sql

    def script(self, connection: Any, text: str) -> None:
        """Run several statements."""
        connection.executescript(text)

    def lock(self, connection: Any, table: str) -> None:
        """Do nothing: the file has one writer at a time."""

    def has_table(self, connection: Any, table: str) -> bool:
        """Tell whether there is a table."""
        wanted = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        return connection.execute(wanted, [table]).fetchone() is not None

    async def changes(self, clock: Clock) -> AsyncGenerator[None]:
        """Yield at once, and again whenever a connection has committed something.

        `PRAGMA data_version` compares a counter in the journal's shared memory: some microseconds, so it runs
        on the event loop, on a connection of its own that waits for no lock.

        Raises:
            StoreUnavailableError: The file that is open was deleted or replaced.
        """
        self._check_place()
        with closing(self._open(0)) as connection:
            seen = None
            while True:
                with suppress(sqlite3.OperationalError):  # locked for a moment: the next look will tell
                    version = connection.execute("PRAGMA data_version").fetchone()
                    if version != seen:
                        seen = version
                        yield
                self._check_place()
                await clock.sleep(LOOK_EVERY)
