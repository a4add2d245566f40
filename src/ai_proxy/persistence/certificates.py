"""Certificates of the proxy; their private keys are files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, select

from ai_proxy.core.store_ports import Certificate
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.sql import upsert
from ai_proxy.persistence.tables import certificates


class Certificates:
    """Implements `core.store_ports.CertificateStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[Certificate]:
        """Return every certificate, by name."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(certificates).order_by(certificates.c.name))
            return [_certificate(row) for row in rows.mappings()]

    async def get(self, name: str) -> Certificate | None:
        """Return one; None when there is none of that name."""
        return next((one for one in await self.all() if one.name == name), None)

    async def put(self, certificate: Certificate) -> None:
        """Keep one, in place of the last of its name."""
        async with self._database.writing() as connection:
            await upsert(connection, certificates, [asdict(certificate)])

    async def drop(self, name: str) -> None:
        """Forget one."""
        async with self._database.writing() as connection:
            await connection.execute(delete(certificates).where(certificates.c.name == name))


def _certificate(row: Mapping[Any, Any]) -> Certificate:
    return Certificate(**{**row, "domains": tuple(row["domains"])})
