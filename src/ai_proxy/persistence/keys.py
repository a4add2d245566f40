"""API keys, without the keys themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, or_, select, update

from ai_proxy.core.keys import ApiKey, Grant, Scope
from ai_proxy.core.limits import Allowance
from ai_proxy.core.store_ports import KEYS
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.sql import count_change
from ai_proxy.persistence.tables import api_keys


class Keys:
    """Implements `core.store_ports.KeyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[ApiKey]:
        """Return every key, oldest first."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(api_keys).order_by(api_keys.c.created, api_keys.c.id))
            return [_key(row) for row in rows.mappings()]

    async def add(self, key: ApiKey) -> None:
        """Keep a new key; on return it is on disk."""
        async with self._database.writing() as connection:
            await connection.execute(insert(api_keys).values(_row(key)))
            await count_change(connection, KEYS)

    async def revoke(self, key_id: str, at: float) -> None:
        """Revoke a key, unless it is; on return that is on disk."""
        meant = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked.is_(None))
        async with self._database.writing() as connection:
            await connection.execute(meant.values(revoked=at))
            await count_change(connection, KEYS)

    async def rotate(self, old: ApiKey, fresh: ApiKey) -> None:
        """Keep a new key and the end of the one it replaces, both or neither."""
        async with self._database.writing() as connection:
            await connection.execute(
                update(api_keys).where(api_keys.c.id == old.id).values(expires=old.expires)
            )
            await connection.execute(insert(api_keys).values(_row(fresh)))
            await count_change(connection, KEYS)

    async def touch(self, last_used: Mapping[str, float]) -> None:
        """Note when keys were last used; never goes back in time."""
        async with self._database.writing() as connection:
            for key_id, at in last_used.items():
                older = or_(api_keys.c.last_used.is_(None), api_keys.c.last_used < at)
                await connection.execute(
                    update(api_keys).where(api_keys.c.id == key_id, older).values(last_used=at)
                )


def _row(key: ApiKey) -> dict[str, Any]:
    grant = key.grant
    return {
        "id": key.id,
        "digest": key.digest,
        "label": grant.label,
        "scopes": sorted(grant.scopes),
        "models": sorted(grant.models),
        "rpm": grant.allowance.rpm,
        "burst": grant.allowance.burst,
        "tpm": grant.allowance.tpm,
        "concurrency": grant.allowance.concurrency,
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "rotated_from": key.rotated_from or None,
        "last_used": key.last_used,
    }


def _key(row: Mapping[Any, Any]) -> ApiKey:
    grant = Grant(
        label=row["label"],
        scopes=frozenset(map(Scope, row["scopes"])),
        models=frozenset(row["models"]),
        allowance=Allowance(row["rpm"], row["burst"], row["tpm"], row["concurrency"]),
    )
    return ApiKey(
        id=row["id"],
        digest=row["digest"],
        grant=grant,
        created=row["created"],
        expires=row["expires"],
        revoked=row["revoked"],
        rotated_from=row["rotated_from"] or "",
        last_used=row["last_used"],
    )
