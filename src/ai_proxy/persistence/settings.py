"""Settings changed at run time."""

from collections.abc import Mapping, Sequence

from ai_proxy.persistence.database import Database, Row
from ai_proxy.persistence.rows import UNREADABLE, decode, encode, skip


class Settings:
    """Implements `core.store_ports.SettingStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Mapping[str, object]:
        """Return every setting that was made and can be read."""
        return _values(await self._database.read(lambda tx: tx.rows("SELECT * FROM settings ORDER BY name")))

    async def get(self, name: str) -> object | None:
        """Return a setting; None when it was not made."""
        wanted = "SELECT * FROM settings WHERE name = :name"
        return _values(await self._database.read(lambda tx: tx.rows(wanted, name=name))).get(name)

    async def put(self, name: str, value: object) -> None:
        """Make a setting."""
        await self._database.write(
            lambda tx: tx.run(
                """
                INSERT INTO settings (name, value) VALUES (:name, :value)
                ON CONFLICT (name) DO UPDATE SET value = excluded.value
                """,
                name=name,
                value=encode(value),
            )
        )

    async def drop(self, name: str) -> None:
        """Go back to what holds without it."""
        await self._database.write(lambda tx: tx.run("DELETE FROM settings WHERE name = :name", name=name))


def _values(rows: Sequence[Row]) -> dict[str, object]:
    found = {}
    for row in rows:
        try:
            found[row["name"]] = decode(row["value"])
        except UNREADABLE as error:
            skip(f"the setting {row['name']}", error, "it does not hold; make it again, or drop it")
    return found
