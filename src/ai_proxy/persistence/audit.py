"""The audit log: rows are added and read, and no code here does anything else to them."""

from collections.abc import Sequence
from dataclasses import asdict

from ai_proxy.core.store_ports import AuditEntry
from ai_proxy.persistence.database import Database, Transaction

_ADD = """
INSERT INTO audit (at, who, what, where_from, result, detail, count)
VALUES (:at, :who, :what, :where_from, :result, :detail, :count)
"""


class Audit:
    """Implements `core.store_ports.AuditStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Add entries, all or none; on return they are on disk."""

        def add(tx: Transaction) -> None:
            tx.lock(
                "audit"
            )  # keeps the order of `seq` that of the commits: who follows the log misses nothing
            tx.run_all(_ADD, [asdict(entry) for entry in entries])

        if entries:
            await self._database.write(add)

    async def page(
        self, after: int = 0, limit: int = 1000, since: float | None = None, until: float | None = None
    ) -> Sequence[AuditEntry]:
        """Return the entries that follow one, oldest first."""
        return await self._read("seq > :after", "seq", after, limit, since, until)

    async def newest(
        self, limit: int = 1000, since: float | None = None, until: float | None = None
    ) -> Sequence[AuditEntry]:
        """Return the last entries, oldest first."""
        return (await self._read("seq > :after", "seq DESC", 0, limit, since, until))[::-1]

    async def last_seq(self) -> int:
        """Return the place of the last entry; 0 when there is none."""
        return await self._database.read(lambda tx: tx.value("SELECT max(seq) AS last FROM audit")) or 0

    async def _read(
        self, condition: str, order: str, after: int, limit: int, since: float | None, until: float | None
    ) -> list[AuditEntry]:
        conditions = [condition]
        if since is not None:
            conditions.append("at >= :since")
        if until is not None:
            conditions.append("at < :until")
        wanted = f"SELECT * FROM audit WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT :limit"  # noqa: S608 - our own
        values = {"after": after, "limit": limit, "since": since, "until": until}
        rows = await self._database.read(lambda tx: tx.rows(wanted, **values))
        return [AuditEntry(**row) for row in rows]
