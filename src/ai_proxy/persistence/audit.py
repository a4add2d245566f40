"""The audit log: rows are added and read, and removed when they exceed the retention."""

from collections.abc import Sequence
from dataclasses import asdict

from ai_proxy.core.store_ports import AuditEntry
from ai_proxy.persistence.database import Database, Transaction

_ADD = """
INSERT INTO audit (at, who, what, where_from, result, detail, count, refused)
VALUES (:at, :who, :what, :where_from, :result, :detail, :count, :refused)
"""
_TOO_OLD = """
SELECT max(seq) AS last FROM audit WHERE refused = :refused AND seq < COALESCE(
    (SELECT min(seq) FROM audit WHERE refused = :refused AND at >= :before),
    (SELECT max(seq) + 1 FROM audit)
)
"""
_NTH_NEWEST = "SELECT seq FROM audit WHERE refused = :refused ORDER BY seq DESC LIMIT 1 OFFSET :most"
_NTH_OLDEST = "SELECT seq FROM audit WHERE refused = :refused ORDER BY seq LIMIT 1 OFFSET :most"


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
            tx.run_all(_ADD, [{**asdict(entry), "refused": int(entry.refused)} for entry in entries])

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

    async def trim(self, before: float, most: int, limit: int, *, refused: bool) -> int:
        """Remove the oldest entries of a kind; return how many."""
        kind = int(refused)

        def remove(tx: Transaction) -> int:
            too_old = tx.value(_TOO_OLD, refused=kind, before=before) or 0
            too_many = tx.value(_NTH_NEWEST, refused=kind, most=most) or 0
            end = max(too_old, too_many)
            if (last := tx.value(_NTH_OLDEST, refused=kind, most=limit - 1)) is not None:
                end = min(end, last)
            gone = {"refused": kind, "seq": end}
            count = tx.value(
                "SELECT count(*) AS n FROM audit WHERE refused = :refused AND seq <= :seq", **gone
            )
            if count:
                tx.run("UPDATE audit_ends SET seq = :seq WHERE refused = :refused AND seq < :seq", **gone)
                tx.run("DELETE FROM audit WHERE refused = :refused AND seq <= :seq", **gone)
            return int(count)

        return await self._database.write(remove)

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
        return [AuditEntry(**{**row, "refused": bool(row["refused"])}) for row in rows]
