"""Transactions on the database: SQLite in a file of the owner's, or PostgreSQL.

Every transaction of a `Database` runs on one thread of its own, one after the other, on one connection. The
statements are plain SQL that both databases understand, with `:name` for values.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from ai_proxy.core.errors import StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.persistence.failures import explained

FILE_NAME = "ai-proxy.db"
"""SQLite's file in the data directory."""
PATIENCE = 5.0
"""Seconds to wait for another process that writes, those in the queue for the thread among them."""
LEAST_PATIENCE = 0.02
"""Such seconds for a transaction that has spent its own in the queue: the lock may be free by now."""

type Row = Mapping[str, Any]


class Driver(Protocol):
    """What differs between the databases. Every method but `changes` runs on the database's thread."""

    name: str
    errors: tuple[type[Exception], ...]
    """What its calls raise."""
    lost: tuple[type[Exception], ...]
    """Of these, what `begin` raises when the connection was lost since the last transaction."""

    def connect(self) -> Any:
        """Open a connection (DB-API 2.0) in autocommit mode, whose rows are mappings."""

    def begin(self, connection: Any, *, writes: bool, patience: float) -> None:
        """Begin a transaction.

        Args:
            connection: As `connect` returned it.
            writes: Whether it changes anything.
            patience: Seconds to wait for another process that writes.

        Raises:
            StoreError: What it writes would be lost.
        """

    def statement(self, sql: str) -> str:
        """Return a statement with placeholders as the driver wants them."""

    def script(self, connection: Any, text: str) -> None:
        """Run several statements, without values."""

    def lock(self, connection: Any, table: str) -> None:
        """Let one transaction at a time write to a table, until this one ends."""

    def has_table(self, connection: Any, table: str) -> bool:
        """Tell whether there is a table."""

    def changes(self, clock: Clock) -> AsyncGenerator[None]:
        """Yield at once, and again whenever another connection may have changed something."""


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where a store is.

    Attributes:
        path: SQLite's file; None for PostgreSQL.
        server: PostgreSQL's connection URI; empty for SQLite.
    """

    path: Path | None
    server: str = ""

    def __str__(self) -> str:
        """Return it as people know it: a path, or a URL without its password."""
        if self.path is not None:
            return str(self.path)
        shown = re.sub(r"://([^:@/?]*):.*@", r"://\1:***@", self.server)
        return re.sub(r"(?<=[?&]password=)[^&]*", "***", shown)


def file_url(folder: Path) -> str:
    """Return the URL of the database in a data directory.

    >>> file_url(Path("/srv/ai-proxy"))
    'sqlite:////srv/ai-proxy/ai-proxy.db'
    """
    return f"sqlite:///{folder / FILE_NAME}"


def parse_url(text: str) -> StoreUrl:
    """Read the URL of a store.

    Raises:
        StoreError: It is not a URL, or names a database that is not supported.

    >>> parse_url("sqlite:////srv/x.db").path, parse_url("postgres://me@host/db").server
    (PosixPath('/srv/x.db'), 'postgresql://me@host/db')
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise StoreError("cannot read the URL of the store; write postgresql://user@host/name")
    kind, _, _ = scheme.partition("+")
    if kind == "sqlite":
        name = rest.removeprefix("/")
        if name in (rest, "", ":memory:"):
            raise StoreError("the URL of the store names no file; write sqlite:////folder/ai-proxy.db")
        return StoreUrl(Path(name))
    if kind in ("postgres", "postgresql"):
        # Earlier versions took the parameter `ssl`, with the values that libpq knows as `sslmode`.
        return StoreUrl(None, "postgresql://" + re.sub(r"(?<=[?&])ssl=", "sslmode=", rest))
    raise StoreError(f"the store can be sqlite or postgresql, not {scheme!r}; correct store.url")


def database_file(url: str | None, data: Path) -> Path | None:
    """Return the file of the database; None when it is on a server.

    Args:
        url: As configured; None for the usual one.
        data: The data directory.

    Raises:
        StoreError: The URL is not valid.

    >>> database_file(None, Path("/data")), database_file("sqlite:////srv/x.db", Path("/data"))
    (PosixPath('/data/ai-proxy.db'), PosixPath('/srv/x.db'))
    >>> database_file("postgresql://me@host/db", Path("/data")) is None
    True
    """
    if url is None:
        return data / FILE_NAME
    return parse_url(url).path


class Transaction:
    """A transaction under way, on the database's thread."""

    def __init__(self, connection: Any, driver: Driver) -> None:
        self._connection = connection
        self._driver = driver

    def rows(self, sql: str, **values: object) -> list[Row]:
        """Run a statement and return what it yields."""
        cursor = self._connection.execute(self._driver.statement(sql), values)
        return [dict(row) for row in cursor.fetchall()]

    def value(self, sql: str, **values: object) -> Any:
        """Return the first column of the first row; None without a row."""
        found = self.rows(sql, **values)
        return next(iter(found[0].values())) if found else None

    def run(self, sql: str, **values: object) -> None:
        """Run a statement that yields nothing."""
        self._connection.execute(self._driver.statement(sql), values)

    def run_all(self, sql: str, rows: Iterable[Row]) -> None:
        """Run a statement once for each row of values."""
        self._connection.cursor().executemany(self._driver.statement(sql), list(rows))

    def script(self, text: str) -> None:
        """Run several statements, without values."""
        self._driver.script(self._connection, text)

    def lock(self, table: str) -> None:
        """Let one transaction at a time write to a table, until this one ends."""
        self._driver.lock(self._connection, table)

    def has_table(self, table: str) -> bool:
        """Tell whether there is a table."""
        return self._driver.has_table(self._connection, table)


class Database:
    """Transactions on a database, whose failures are StoreErrors.

    Args:
        url: As `parse_url` returns it.
        foreign_keys: Whether SQLite checks references; not while a migration remakes tables.
        patience: Seconds to wait for another process that writes to SQLite.

    Attributes:
        url: Where it is.
        where: The same, as people know it: a path, or a URL without its password.
    """

    def __init__(self, url: StoreUrl, *, foreign_keys: bool = True, patience: float = PATIENCE) -> None:
        self.url = url
        self.where = str(url)
        self._driver = _driver(url, foreign_keys=foreign_keys, patience=patience)
        self._patience = patience
        self._connection: Any = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    def __repr__(self) -> str:
        return f"<Database [{self.where}]>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    @property
    def kind(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._driver.name

    async def read[T](self, work: Callable[[Transaction], T]) -> T:
        """Return what `work` reads, in one transaction.

        Raises:
            StoreError: It failed.
        """
        return await self._run(work, writes=False)

    async def write[T](self, work: Callable[[Transaction], T]) -> T:
        """Return what comes of `work`: on return it is on disk, on an error nothing has changed.

        Raises:
            StoreError: It failed.
        """
        return await self._run(work, writes=True)

    async def changes(self, clock: Clock) -> AsyncGenerator[None]:
        """Yield at once, and again whenever another connection may have changed something.

        Raises:
            StoreError: The database is away.
        """
        with explained(self.where, self._driver.errors):
            async with aclosing(self._driver.changes(clock)) as changes:
                async for change in changes:
                    yield change

    async def _run[T](self, work: Callable[[Transaction], T], *, writes: bool) -> T:
        transact = partial(self._transact, work, time.monotonic(), writes=writes)
        return await asyncio.get_running_loop().run_in_executor(self._thread, transact)

    def _transact[T](self, work: Callable[[Transaction], T], asked: float, *, writes: bool) -> T:
        """Run a transaction; when a lock holds up one, those behind it do not each wait as long again."""
        patience = max(LEAST_PATIENCE, self._patience - (time.monotonic() - asked))
        with explained(self.where, self._driver.errors):
            connection = self._begun(writes=writes, patience=patience)
            try:
                result = work(Transaction(connection, self._driver))
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            return result

    def _begun(self, *, writes: bool, patience: float) -> Any:
        """Return the connection with a transaction begun: the last one, unless its server hung up."""
        if self._connection is not None:
            try:
                self._driver.begin(self._connection, writes=writes, patience=patience)
            except self._driver.lost:
                self._disconnect()
            else:
                return self._connection
        self._connection = self._driver.connect()
        self._driver.begin(self._connection, writes=writes, patience=patience)
        return self._connection

    def _roll_back(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except self._driver.errors:  # its failure ended the transaction, or the connection
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*self._driver.errors):
                connection.close()


def _driver(url: StoreUrl, *, foreign_keys: bool, patience: float) -> Driver:
    if url.path is not None:
        from ai_proxy.persistence.sqlite import Sqlite

        return Sqlite(url.path, foreign_keys=foreign_keys, patience=patience)
    from ai_proxy.persistence.postgres import Postgres  # needs an extra, and memory that SQLite does without

    return Postgres(url.server)
