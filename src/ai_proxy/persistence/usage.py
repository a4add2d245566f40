"""Counts of what was used, by day, key and model."""

from collections.abc import Sequence
from dataclasses import asdict
from operator import add

from sqlalchemy import select

from ai_proxy.core.store_ports import Usage
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.sql import upsert
from ai_proxy.persistence.tables import usage as table

_COUNTS = ("requests", "tokens_in", "tokens_out")


class UsageCounts:
    """Implements `core.store_ports.UsageStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, usage: Sequence[Usage]) -> None:
        """Add to what is counted already, all or nothing."""
        if not usage:
            return
        async with self._database.writing() as connection:
            await upsert(connection, table, [asdict(one) for one in usage], dict.fromkeys(_COUNTS, add))

    async def totals(self, since_day: str = "", key_id: str | None = None) -> Sequence[Usage]:
        """Return the counts from a day on, by day, key and model."""
        wanted = select(table).where(table.c.day >= since_day)
        if key_id is not None:
            wanted = wanted.where(table.c.key_id == key_id)
        wanted = wanted.order_by(table.c.day, table.c.key_id, table.c.model)
        async with self._database.reading() as connection:
            return [Usage(**row) for row in (await connection.execute(wanted)).mappings()]
