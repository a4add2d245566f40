"""The store: a database, and one repository for each kind of fact in it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress

from ai_proxy.core.ports import Clock
from ai_proxy.persistence.audit import Audit
from ai_proxy.persistence.database import PATIENCE, Database, Transaction, parse_url
from ai_proxy.persistence.engine_cache import StoredEngineCache
from ai_proxy.persistence.file import database_problems, is_empty, make_private
from ai_proxy.persistence.instances import Instances
from ai_proxy.persistence.keys import Keys
from ai_proxy.persistence.mark import SecuredMark, lost
from ai_proxy.persistence.migrate import MIGRATIONS, Migrations, migrate, schema_of
from ai_proxy.persistence.policy import Policies
from ai_proxy.persistence.settings import Settings
from ai_proxy.persistence.usage import UsageCounts


class Changes:
    """Implements `core.store_ports.ChangeFeed`; triggers in the database count (see `migrations`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def watch(self, clock: Clock) -> AsyncGenerator[Mapping[str, int]]:
        """Yield the counts of changes, by name: at once, and whenever they may have risen."""
        async with aclosing(self._database.changes(clock)) as changes:
            async for _ in changes:
                yield await self.counts()

    async def counts(self) -> Mapping[str, int]:
        """Return the counts of changes, by name; what never changed is left out."""
        rows = await self._database.read(lambda tx: tx.rows("SELECT name, count FROM changes"))
        return {row["name"]: row["count"] for row in rows}


class Store:
    """One repository for each thing that is kept, all on one database.

    Args:
        database: Holds them.
        mark: Records that there are keys or a policy; None for a store that is only read.
    """

    def __init__(self, database: Database, mark: SecuredMark | None = None) -> None:
        secured = mark.set if mark is not None else lambda: None
        self.settings = Settings(database)
        self.instances = Instances(database)
        self.keys = Keys(database, secured)
        self.policies = Policies(database, secured)
        self.audit = Audit(database)
        self.usage = UsageCounts(database)
        self.changes = Changes(database)
        self._database = database

    def __repr__(self) -> str:
        return f"<Store [{self._database.where}]>"

    @property
    def where(self) -> str:
        """The database, as people know it: a path, or a URL without its password."""
        return self._database.where

    def engine_cache(self, clock: Clock, ttl: float) -> StoredEngineCache:
        """Return the cache of what was found out about engines, which forgets after `ttl` seconds."""
        return StoredEngineCache(self._database, clock, ttl)

    async def is_secured(self) -> bool:
        """Return whether it holds an API key or a policy."""
        return await self._database.read(_is_secured)

    async def problems(self) -> Sequence[str]:
        """Check the whole database, and return what is wrong with it; slow for a large one."""
        if self._database.url.path is not None:
            return await asyncio.to_thread(database_problems, self._database.url.path)
        await self._database.read(lambda tx: tx.value("SELECT 1 AS one"))
        return []


@asynccontextmanager
async def open_store(
    url: str,
    *,
    mark: SecuredMark | None = None,
    migrations: Migrations = MIGRATIONS,
    patience: float = PATIENCE,
) -> AsyncIterator[Store]:
    """Open a store and bring it up to date.

    Args:
        url: Of SQLite or PostgreSQL; `database.file_url` makes the one of a data directory.
        mark: Distinguishes a lost store from a new one; None where no access depends on it.
        migrations: The steps that bring it up to date.
        patience: Seconds to wait for another process that writes to SQLite.

    Raises:
        StoreError: It cannot be used; the detail gives the reason and what to do.
    """
    parsed = parse_url(url)
    if mark is not None and mark.is_set and parsed.path is not None and is_empty(parsed.path):
        raise lost(str(parsed))  # before an empty one is made in its place
    if parsed.path is not None:
        make_private(parsed.path)
    async with Database(parsed, patience=patience) as database:
        if await schema_of(database) != migrations.head:
            async with Database(parsed, foreign_keys=False, patience=patience) as unchecked:
                await migrate(unchecked, migrations)
        if mark is not None:
            await _compare(database, mark)
        yield Store(database, mark)


async def _compare(database: Database, mark: SecuredMark) -> None:
    """Check that a marked store is not empty; mark one with keys of an earlier version.

    Raises:
        StoreDamagedError: The store was lost.
        StoreError: It cannot be read.
    """
    if await database.read(_is_secured):
        with suppress(OSError):  # on a full disk, the next start tries again
            await asyncio.to_thread(mark.set)
    elif mark.is_set:
        raise lost(database.where)


def _is_secured(transaction: Transaction) -> bool:
    """Tell whether a store holds an API key or a policy."""
    held = "SELECT EXISTS (SELECT 1 FROM api_keys) OR EXISTS (SELECT 1 FROM policy) AS held"
    return bool(transaction.value(held))
