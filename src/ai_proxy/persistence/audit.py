"""The audit log: rows are added and read, and there is no code here that does anything else to them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Select, func, insert, select, text

from ai_proxy.core.store_ports import AuditEntry
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.tables import audit

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(7102611)")
"""Keeps the order of `seq` that of the commits, so that whoever follows the log misses nothing."""


class Audit:
    """Implements `core.store_ports.AuditStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Add entries, all or none; on return they are on disk."""
        rows = [asdict(entry) for entry in entries]
        for row in rows:
            del row["seq"]
        if not rows:
            return
        async with self._database.writing() as connection:
            if not self._database.is_sqlite:
                await connection.execute(_ONE_AT_A_TIME)
            await connection.execute(insert(audit), rows)

    async def page(
        self, after: int = 0, limit: int = 1000, since: float | None = None, until: float | None = None
    ) -> Sequence[AuditEntry]:
        """Return the entries that follow one, oldest first."""
        return await self._read(
            _within(since, until).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
        )

    async def newest(
        self, limit: int = 1000, since: float | None = None, until: float | None = None
    ) -> Sequence[AuditEntry]:
        """Return the last entries, oldest first."""
        found = await self._read(_within(since, until).order_by(audit.c.seq.desc()).limit(limit))
        return found[::-1]

    async def last_seq(self) -> int:
        """Return the place of the last entry; 0 when there is none."""
        async with self._database.reading() as connection:
            return await connection.scalar(select(func.max(audit.c.seq))) or 0

    async def _read(self, wanted: Select[Any]) -> list[AuditEntry]:
        async with self._database.reading() as connection:
            return [AuditEntry(**row) for row in (await connection.execute(wanted)).mappings()]


def _within(since: float | None, until: float | None) -> Select[Any]:
    wanted = select(audit)
    if since is not None:
        wanted = wanted.where(audit.c.at >= since)
    return wanted if until is None else wanted.where(audit.c.at < until)
