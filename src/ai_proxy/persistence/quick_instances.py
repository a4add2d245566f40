"""The background proxies, for commands that answer at once: read from the file where that is possible."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from ai_proxy.core.store_ports import Instance, InstanceStore
from ai_proxy.persistence.database import FILE_NAME, file_url
from ai_proxy.persistence.instances import ALL, read_rows
from ai_proxy.persistence.store import open_store

PATIENCE = 1.0
"""Seconds to wait for another process that has the file for itself."""


class QuickInstances:
    """Implements `core.store_ports.InstanceStore` for commands; opens the store only where it must.

    Args:
        url: Of the store; None for the one in the data directory.
        folder: The data directory.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        self._url = url
        self._file = folder / FILE_NAME

    def __repr__(self) -> str:
        return f"<QuickInstances [{self._file if self._url is None else 'a store by URL'}]>"

    async def all(self) -> Sequence[Instance]:
        """Return every instance that can be read, by port."""
        found = read_instances(self._file) if self._url is None else None
        if found is not None:
            return found
        async with self._opened() as instances:
            return await instances.all()

    async def put(self, instance: Instance) -> None:
        """Keep an instance, in place of the one with its id."""
        async with self._opened() as instances:
            await instances.put(instance)

    async def drop(self, instance_id: str) -> None:
        """Forget an instance."""
        async with self._opened() as instances:
            await instances.drop(instance_id)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[InstanceStore]:
        async with open_store(self._url or file_url(self._file.parent)) as store:
            yield store.instances


def read_instances(file: Path) -> Sequence[Instance] | None:
    """Read every instance, by port, from SQLite's file: none when there is no file yet.

    Args:
        file: Of the database.

    Returns:
        None if that fails: opening the store then migrates it, or raises the reason.
    """
    try:
        if not file.exists():
            return ()
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", timeout=PATIENCE, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute(ALL)]
    except (OSError, sqlite3.Error):
        return None
    return read_rows(rows)
