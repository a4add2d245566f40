"""Counts of what was used, by day, key and model."""

from collections.abc import Sequence
from dataclasses import asdict

from ai_proxy.core.store_ports import Usage
from ai_proxy.persistence.database import Database, Transaction

_ADD = """
INSERT INTO usage (day, key_id, model, requests, tokens_in, tokens_out)
VALUES (:day, :key_id, :model, :requests, :tokens_in, :tokens_out)
ON CONFLICT (day, key_id, model) DO UPDATE SET
    requests = usage.requests + excluded.requests,
    tokens_in = usage.tokens_in + excluded.tokens_in,
    tokens_out = usage.tokens_out + excluded.tokens_out
"""


class UsageCounts:
    """Implements `core.store_ports.UsageStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, usage: Sequence[Usage]) -> None:
        """Add to what is counted already, all or nothing."""
        if usage:
            await self._database.write(lambda tx: tx.run_all(_ADD, [asdict(one) for one in usage]))

    async def trim(self, since_day: str, most: int) -> None:
        """Remove the counts from before a day, and the oldest beyond a number of rows."""
        beyond = """
            DELETE FROM usage WHERE (day, key_id, model) IN (
                SELECT day, key_id, model FROM usage ORDER BY day DESC, requests DESC, key_id, model
                LIMIT :most OFFSET :kept
            )
        """

        def remove(tx: Transaction) -> None:
            tx.run("DELETE FROM usage WHERE day < :day", day=since_day)
            count = tx.value("SELECT count(*) AS n FROM usage")
            if count > most:
                tx.run(beyond, most=count, kept=most)

        await self._database.write(remove)

    async def totals(self, since_day: str = "", key_id: str | None = None) -> Sequence[Usage]:
        """Return the counts from a day on, by day, key and model."""
        of_key = "" if key_id is None else "AND key_id = :key_id"
        wanted = f"SELECT * FROM usage WHERE day >= :day {of_key} ORDER BY day, key_id, model"  # noqa: S608 - our own
        rows = await self._database.read(lambda tx: tx.rows(wanted, day=since_day, key_id=key_id))
        return [Usage(**row) for row in rows]
