"""Handles of proxies, read without opening the store: for commands that people wait for."""

import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import fields
from pathlib import Path

from ai_proxy.core.store_ports import HandleStore, ProxyHandle
from ai_proxy.persistence.file import FILE_NAME

PATIENCE = 1.0
"""Seconds to wait for another process that has the file for itself."""
SELECT = f"SELECT {', '.join(field.name for field in fields(ProxyHandle))} FROM proxy_handles ORDER BY port"  # noqa: S608 - of our own making


class QuickHandles:
    """Implements `core.store_ports.HandleStore`, and opens the store when there is no other way.

    Args:
        url: Of the store; None for the one in the data directory.
        folder: The data directory.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        self._url = url
        self._file = folder / FILE_NAME

    def __repr__(self) -> str:
        return f"<QuickHandles [{self._file if self._url is None else 'a store by URL'}]>"

    async def all(self) -> Sequence[ProxyHandle]:
        """Return every handle, by port."""
        found = read_handles(self._file) if self._url is None else None
        if found is not None:
            return found
        async with self._opened() as handles:
            return await handles.all()

    async def put(self, handle: ProxyHandle) -> None:
        """Keep a handle, in place of the one with its id."""
        async with self._opened() as handles:
            await handles.put(handle)

    async def drop(self, handle_id: str) -> None:
        """Forget a handle."""
        async with self._opened() as handles:
            await handles.drop(handle_id)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[HandleStore]:
        from ai_proxy.persistence.database import file_url
        from ai_proxy.persistence.store import open_store

        async with open_store(self._url or file_url(self._file.parent)) as store:
            yield store.handles


def read_handles(file: Path) -> Sequence[ProxyHandle] | None:
    """Read every handle, by port, from SQLite's file: none when there is no file yet.

    Args:
        file: Of the database.

    Returns:
        None if it cannot be read like that: who opens the store brings it up to date, or tells what is wrong.
    """
    try:
        if not file.exists():
            return ()
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", timeout=PATIENCE, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute(SELECT).fetchall()
    except (OSError, sqlite3.Error):
        return None
    return [ProxyHandle(**{**row, "endpoints": tuple(json.loads(row["endpoints"]))}) for row in rows]
