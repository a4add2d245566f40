"""Proxies that run in the background, as the store knows them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ai_proxy.core.store_ports import Instance
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.rows import UNREADABLE, decode, encode, fact, skip

ALL = "SELECT * FROM proxy_handles ORDER BY port"
"""Returns what `read_rows` takes."""
_PUT = """
INSERT INTO proxy_handles (
    id, machine, pid, started, host, port, mode, endpoints, last_error, birth, stop_within
) VALUES (
    :id, :machine, :pid, :started, :host, :port, :mode, :endpoints, :last_error, :birth, :stop_within
)
ON CONFLICT (id) DO UPDATE SET
    machine = excluded.machine, pid = excluded.pid, started = excluded.started, host = excluded.host,
    port = excluded.port, mode = excluded.mode, endpoints = excluded.endpoints,
    last_error = excluded.last_error, birth = excluded.birth,
    stop_within = excluded.stop_within
"""


class Instances:
    """Implements `core.store_ports.InstanceStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[Instance]:
        """Return every instance that can be read, by port."""
        return read_rows(await self._database.read(lambda tx: tx.rows(ALL)))

    async def put(self, instance: Instance) -> None:
        """Keep an instance, in place of the one with its id."""
        row = {**asdict(instance), "endpoints": encode(instance.endpoints)}
        await self._database.write(lambda tx: tx.run(_PUT, **row))

    async def drop(self, instance_id: str) -> None:
        """Forget an instance."""
        forget = "DELETE FROM proxy_handles WHERE id = :id"
        await self._database.write(lambda tx: tx.run(forget, id=instance_id))


def read_rows(rows: Sequence[Mapping[str, Any]]) -> list[Instance]:
    """Return the instances that can be read; log the others."""
    found = []
    for row in rows:
        try:
            found.append(fact(Instance, {**row, "endpoints": decode(row["endpoints"])}))
        except UNREADABLE as error:
            skip(
                f"the proxy {row['id']}",
                error,
                "commands leave it out; stop it with the version that started it",
            )
    return found
