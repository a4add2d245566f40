"""Every policy that was ever set."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, insert, select

from ai_proxy.core.store_ports import POLICY, PolicyRevision
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.sql import count_change
from ai_proxy.persistence.tables import policy


class Policies:
    """Implements `core.store_ports.PolicyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def current(self) -> PolicyRevision | None:
        """Return the one in force; None before the first."""
        return next(iter(await self.history(1)), None)

    async def history(self, limit: int = 100) -> Sequence[PolicyRevision]:
        """Return the last ones, newest first."""
        newest = select(policy).order_by(policy.c.number.desc()).limit(limit)
        async with self._database.reading() as connection:
            return [PolicyRevision(**row) for row in (await connection.execute(newest)).mappings()]

    async def put(self, at: float, who: str, document: Mapping[str, object]) -> PolicyRevision:
        """Put one in force."""
        async with self._database.writing() as connection:
            await count_change(connection, POLICY)  # locks its row, so that nobody else takes the number
            last = await connection.scalar(select(func.max(policy.c.number)))
            revision = PolicyRevision((last or 0) + 1, at, who, document)
            await connection.execute(
                insert(policy).values(number=revision.number, at=at, who=who, document=document)
            )
            return revision
