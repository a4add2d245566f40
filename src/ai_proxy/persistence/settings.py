"""Settings changed at run time."""

from collections.abc import Mapping

from sqlalchemy import delete, select

from ai_proxy.core.store_ports import SETTINGS
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.sql import count_change, upsert
from ai_proxy.persistence.tables import settings


class Settings:
    """Implements `core.store_ports.SettingStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Mapping[str, object]:
        """Return every setting that was made."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(settings).order_by(settings.c.name))
            return {row.name: row.value for row in rows}

    async def get(self, name: str) -> object | None:
        """Return a setting; None when it was not made."""
        async with self._database.reading() as connection:
            value: object = await connection.scalar(select(settings.c.value).where(settings.c.name == name))
            return value

    async def put(self, name: str, value: object) -> None:
        """Make a setting."""
        async with self._database.writing() as connection:
            await upsert(connection, settings, [{"name": name, "value": value}])
            await count_change(connection, SETTINGS)

    async def drop(self, name: str) -> None:
        """Go back to what holds without it."""
        async with self._database.writing() as connection:
            await connection.execute(delete(settings).where(settings.c.name == name))
            await count_change(connection, SETTINGS)
