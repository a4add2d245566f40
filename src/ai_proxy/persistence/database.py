"""Connections to the database: SQLite in a file of the owner's, or PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ai_proxy.core.errors import StoreError
from ai_proxy.persistence.failures import explained
from ai_proxy.persistence.file import FILE_NAME

PATIENCE = 5.0
"""Seconds to wait for another process that writes."""
POSTGRES_CONNECTIONS = 5
"""At once, for one proxy."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


def file_url(folder: Path) -> str:
    """Return the URL of the database in a data directory.

    >>> file_url(Path("/srv/ai-proxy"))
    'sqlite:////srv/ai-proxy/ai-proxy.db'
    """
    return URL.create("sqlite", database=str(folder / FILE_NAME)).render_as_string()


def parse_url(text: str) -> URL:
    """Read a database URL, and choose the driver.

    Raises:
        StoreError: It is none, or of a database that is not supported.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StoreError("the URL of the store cannot be read; write postgresql://user@host/name") from error
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise StoreError(f"the store can be sqlite or postgresql, not {url.drivername!r}")
    if driver.startswith("sqlite") and url.database in (None, "", ":memory:"):
        raise StoreError("the URL of the store names no file; write sqlite:////folder/ai-proxy.db")
    return url.set(drivername=driver)


class Database:
    """Transactions on a database, whose failures are StoreErrors.

    Args:
        url: As `parse_url` returns it.
        foreign_keys: Whether SQLite watches references; not while tables are remade.
        patience: Seconds to wait for another process that writes to SQLite.
    """

    def __init__(self, url: URL, *, foreign_keys: bool = True, patience: float = PATIENCE) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.where = (url.database or "") if self.is_sqlite else url.render_as_string(hide_password=True)
        if self.is_sqlite:
            self._engine = _sqlite_engine(url, foreign_keys=foreign_keys, patience=patience)
        else:
            self._engine = _postgres_engine(url)

    def __repr__(self) -> str:
        return f"<Database [{self.where}]>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    @property
    def path(self) -> Path | None:
        """SQLite's file; None for PostgreSQL."""
        return Path(self.url.database or "") if self.is_sqlite else None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads."""
        with explained(self.where):
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that writes: on a regular end it is on disk, on an error it never was."""
        with explained(self.where):
            async with self._engine.connect() as plain:
                connection = await plain.execution_options(writes=True)
                async with connection.begin():
                    yield connection


def _postgres_engine(url: URL) -> AsyncEngine:
    try:
        return create_async_engine(url, pool_size=POSTGRES_CONNECTIONS, max_overflow=0, pool_pre_ping=True)
    except (ImportError, NoSuchModuleError) as error:
        raise StoreError(
            "a store in PostgreSQL needs asyncpg: run 'pip install ai-inference-proxy[postgres]'"
        ) from error


def _sqlite_engine(url: URL, *, foreign_keys: bool, patience: float) -> AsyncEngine:
    """Return an engine with a single connection: it is the one writer, and its reads never wait for long."""
    engine = create_async_engine(
        url, pool_size=1, max_overflow=0, connect_args={"timeout": patience, "isolation_level": None}
    )

    def connected(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        # What is committed survives a power cut; NORMAL would lose the last commits.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    def begins(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        # Taking the lock at once avoids the deadlock of two readers that both want to write.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begins)
    return engine
