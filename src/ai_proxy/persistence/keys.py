"""API keys, without the keys themselves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ai_proxy.core.keys import ApiKey
from ai_proxy.persistence.database import Database, Row, Transaction
from ai_proxy.persistence.rows import UNREADABLE, decode, encode, fact, skip

_ADD = """
INSERT INTO api_keys (
    id, digest, label, scopes, models, rpm, burst, tpm, concurrency,
    created, expires, revoked, rotated_from, last_used
) VALUES (
    :id, :digest, :label, :scopes, :models, :rpm, :burst, :tpm, :concurrency,
    :created, :expires, :revoked, :rotated_from, :last_used
)
"""


class Keys:
    """Implements `core.store_ports.KeyStore`.

    Args:
        database: Holds them.
        secured: Remembers that there are keys; called before each is kept, on the database's thread.
    """

    def __init__(self, database: Database, secured: Callable[[], None]) -> None:
        self._database = database
        self._secured = secured

    async def all(self) -> Sequence[ApiKey]:
        """Return every key that can be read, oldest first."""
        rows = await self._database.read(lambda tx: tx.rows("SELECT * FROM api_keys ORDER BY created, id"))
        keys = []
        for row in rows:
            try:
                keys.append(_key(row))
            except UNREADABLE as error:
                skip(
                    f"the API key {row['id']}",
                    error,
                    "requests with it are refused; install the ai-proxy that made it, or create another key",
                )
        return keys

    async def count(self) -> int:
        """Return how many keys there are, those that cannot be read among them."""
        return int(await self._database.read(lambda tx: tx.value("SELECT count(*) AS count FROM api_keys")))

    async def add(self, key: ApiKey) -> None:
        """Keep a new key; on return it is on disk."""

        def insert(tx: Transaction) -> None:
            self._secured()
            tx.run(_ADD, **_row(key))

        await self._database.write(insert)

    async def revoke(self, key_id: str, at: float) -> None:
        """Revoke a key, unless it is; on return that is on disk."""
        meant = "UPDATE api_keys SET revoked = :at WHERE id = :key_id AND revoked IS NULL"
        await self._database.write(lambda tx: tx.run(meant, key_id=key_id, at=at))

    async def rotate(self, old: ApiKey, fresh: ApiKey) -> None:
        """Keep a new key and the end of the one it replaces, both or neither."""

        def replace(tx: Transaction) -> None:
            tx.run("UPDATE api_keys SET expires = :expires WHERE id = :id", id=old.id, expires=old.expires)
            tx.run(_ADD, **_row(fresh))

        await self._database.write(replace)

    async def touch(self, last_used: Mapping[str, float]) -> None:
        """Note when keys were last used; never goes back in time."""
        later = """
            UPDATE api_keys SET last_used = :at WHERE id = :id AND (last_used IS NULL OR last_used < :at)
        """
        rows = [{"id": key_id, "at": at} for key_id, at in last_used.items()]
        await self._database.write(lambda tx: tx.run_all(later, rows))


def _row(key: ApiKey) -> dict[str, Any]:
    row = {**asdict(key), **asdict(key.grant), **asdict(key.grant.allowance)}
    del row["grant"], row["allowance"]
    return {
        **row,
        "scopes": encode(sorted(key.grant.scopes)),
        "models": encode(sorted(key.grant.models)),
        "rotated_from": key.rotated_from or None,
    }


def _key(row: Row) -> ApiKey:
    allowance = {name: row[name] for name in ("rpm", "burst", "tpm", "concurrency")}
    grant = {
        "label": row["label"],
        "scopes": decode(row["scopes"]),
        "models": decode(row["models"]),
        "allowance": allowance,
    }
    return fact(ApiKey, {**row, "grant": grant, "rotated_from": row["rotated_from"] or ""})
