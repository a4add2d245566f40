"""How much memory services were seen to use."""

from collections.abc import Sequence
from dataclasses import asdict
from operator import add
from typing import Any

from sqlalchemy import case, delete, select
from sqlalchemy.sql import ColumnElement

from ai_proxy.core.store_ports import MemoryPeak
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.sql import upsert
from ai_proxy.persistence.tables import memory_peaks as table


class MemoryPeaks:
    """Implements `core.store_ports.MemoryStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def peaks(self, service_id: str, config_hash: str) -> Sequence[MemoryPeak]:
        """Return what is known of a service as it is configured, by device."""
        wanted = select(table).where(table.c.service_id == service_id, table.c.config_hash == config_hash)
        async with self._database.reading() as connection:
            rows = await connection.execute(wanted.order_by(table.c.device))
            return [MemoryPeak(**row) for row in rows.mappings()]

    async def note(self, peak: MemoryPeak) -> None:
        """Add an observation: the peak can only rise."""
        async with self._database.writing() as connection:
            await upsert(connection, table, [asdict(peak)], {"peak_bytes": _larger, "samples": add})

    async def drop(self, service_id: str) -> None:
        """Forget a service."""
        async with self._database.writing() as connection:
            await connection.execute(delete(table).where(table.c.service_id == service_id))


def _larger(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((one > other, one), else_=other)
