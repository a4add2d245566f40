"""The store as a whole: opened once, and handed out in parts."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import text

from ai_proxy.core.ports import Clock
from ai_proxy.persistence.audit import Audit
from ai_proxy.persistence.backup import database_problems
from ai_proxy.persistence.certificates import Certificates
from ai_proxy.persistence.changes import Changes
from ai_proxy.persistence.database import PATIENCE, Database, parse_url
from ai_proxy.persistence.engine_cache import StoredEngineCache
from ai_proxy.persistence.file import make_private
from ai_proxy.persistence.handles import Handles
from ai_proxy.persistence.keys import Keys
from ai_proxy.persistence.memory import MemoryPeaks
from ai_proxy.persistence.migrate import SCRIPTS, Scripts, migrate
from ai_proxy.persistence.policy import Policies
from ai_proxy.persistence.settings import Settings
from ai_proxy.persistence.usage import UsageCounts


class Store:
    """One repository for each thing that is kept, all on one database."""

    def __init__(self, database: Database) -> None:
        self.settings = Settings(database)
        self.handles = Handles(database)
        self.keys = Keys(database)
        self.policies = Policies(database)
        self.audit = Audit(database)
        self.usage = UsageCounts(database)
        self.certificates = Certificates(database)
        self.memory = MemoryPeaks(database)
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

    async def problems(self) -> Sequence[str]:
        """Look the whole database over, and say what is wrong with it; takes long for a large one."""
        if self._database.path is not None:
            return database_problems(self._database.path)
        async with self._database.reading() as connection:
            await connection.execute(text("SELECT 1"))
        return []


@asynccontextmanager
async def open_store(
    url: str, *, scripts: Scripts = SCRIPTS, patience: float = PATIENCE
) -> AsyncIterator[Store]:
    """Open a store and bring it up to date.

    Args:
        url: Of SQLite or PostgreSQL; `database.file_url` makes the one of a data directory.
        scripts: The steps that bring it up to date.
        patience: Seconds to wait for another process that writes to SQLite.

    Raises:
        StoreError: It cannot be used; says why and what to do.
    """
    parsed = parse_url(url)
    async with Database(parsed, foreign_keys=False, patience=patience) as old:
        if old.path is not None:
            make_private(old.path)
        await migrate(old, scripts)
    async with Database(parsed, patience=patience) as database:
        yield Store(database)
