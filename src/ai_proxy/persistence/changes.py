"""Counts of changes, by which instances on the same store hear of each other's."""

from collections.abc import Mapping

from sqlalchemy import select

from ai_proxy.persistence.database import Database
from ai_proxy.persistence.tables import changes


class Changes:
    """Implements `core.store_ports.ChangeCounts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counts(self) -> Mapping[str, int]:
        """Return the counts, by name; what never changed is left out."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(changes))
            return {row["name"]: row["count"] for row in rows.mappings()}
