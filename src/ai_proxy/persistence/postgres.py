"""PostgreSQL as a driver of `Database`."""

import asyncio
import re
from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import Any

from ai_proxy.core.errors import StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.platform.extras import how_to_install

try:
    import psycopg
    from psycopg.rows import dict_row
    from psycopg.types.string import TextLoader
except ImportError as error:
    raise StoreError(
        f"a store in PostgreSQL needs psycopg; install it with: {how_to_install('postgres')}"
    ) from error

CHANNEL = "ai_proxy_changes"
"""On which the database notifies of changes; the migrations name it, too."""
CONNECTION = {
    "connect_timeout": 5,
    # A server that vanished without a word is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""What a URL does not say: times in seconds, the last one in milliseconds."""


class Postgres:
    """Implements `persistence.database.Driver`.

    Args:
        url: As libpq understands it.
    """

    name = "postgresql"
    errors: tuple[type[Exception], ...] = (psycopg.Error, OSError)
    lost: tuple[type[Exception], ...] = (psycopg.OperationalError,)

    def __init__(self, url: str) -> None:
        self._url = url

    def connect(self) -> "psycopg.Connection[Any]":
        """Log in to the server."""
        connection: psycopg.Connection[Any] = psycopg.connect(
            autocommit=True, row_factory=dict_row, **self._settings()
        )
        connection.adapters.register_loader("json", TextLoader)  # as SQLite returns it
        return connection

    def begin(self, connection: Any, *, writes: bool, patience: float) -> None:  # noqa: ARG002 - all are alike
        """Begin a transaction."""
        connection.execute("BEGIN")

    def statement(self, sql: str) -> str:
        """Return the statement with psycopg's placeholders."""
        return _statement(sql)

    def script(self, connection: Any, text: str) -> None:
        """Run several statements."""
        connection.execute(text)

    def lock(self, connection: Any, table: str) -> None:
        """Let one transaction at a time write to a table, until this one ends; everybody may read it."""
        connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")

    def has_table(self, connection: Any, table: str) -> bool:
        """Tell whether there is a table."""
        wanted = "SELECT 1 FROM pg_class WHERE relname = %s AND relkind = 'r' AND pg_table_is_visible(oid)"
        return connection.execute(wanted, [table]).fetchone() is not None

    async def changes(self, clock: Clock) -> AsyncGenerator[None]:  # noqa: ARG002 - nothing is polled
        """Yield at once, and again whenever the database notifies of a change."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        async with await psycopg.AsyncConnection.connect(autocommit=True, **self._settings()) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            descriptor = connection.fileno()
            # The connection's own `notifies` looks ten times a second.
            loop.add_reader(descriptor, arrived.set)
            try:
                while True:
                    yield
                    await arrived.wait()
                    arrived.clear()
                    connection.pgconn.consume_input()
                    while connection.pgconn.notifies() is not None:
                        pass
            finally:
                loop.remove_reader(descriptor)

    def _settings(self) -> dict[str, Any]:
        return {**CONNECTION, **psycopg.conninfo.conninfo_to_dict(self._url)}


@lru_cache(maxsize=100)
def _statement(sql: str) -> str:
    """Return a statement with psycopg's placeholders.

    >>> _statement("SELECT 1 WHERE id = :id")
    'SELECT 1 WHERE id = %(id)s'
    """
    return re.sub(r":(\w+)", r"%(\1)s", sql)
