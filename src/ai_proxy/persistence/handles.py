"""Proxies in the background."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, select

from ai_proxy.core.store_ports import ProxyHandle
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.sql import upsert
from ai_proxy.persistence.tables import proxy_handles


class Handles:
    """Implements `core.store_ports.HandleStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[ProxyHandle]:
        """Return every handle, by port."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(proxy_handles).order_by(proxy_handles.c.port))
            return [ProxyHandle(**{**row, "endpoints": tuple(row["endpoints"])}) for row in rows.mappings()]

    async def put(self, handle: ProxyHandle) -> None:
        """Keep a handle, in place of the one with its id."""
        async with self._database.writing() as connection:
            await upsert(connection, proxy_handles, [asdict(handle)])

    async def drop(self, handle_id: str) -> None:
        """Forget a handle."""
        async with self._database.writing() as connection:
            await connection.execute(delete(proxy_handles).where(proxy_handles.c.id == handle_id))
