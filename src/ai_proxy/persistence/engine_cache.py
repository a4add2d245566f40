"""What was found out about engines, kept for a while, also over a restart."""

from dataclasses import asdict

from loguru import logger

from ai_proxy.core.detection import Detection
from ai_proxy.core.errors import StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.persistence.database import Database, Transaction
from ai_proxy.persistence.rows import UNREADABLE, decode, encode, fact


class StoredEngineCache:
    """Implements `core.ports.EngineCache`. A store that fails is an empty one: engines are then asked again.

    Args:
        database: Where to.
        clock: Tells the time.
        ttl: Time to live, in seconds.
    """

    def __init__(self, database: Database, clock: Clock, ttl: float) -> None:
        self._database = database
        self._clock = clock
        self.ttl = ttl

    async def get(self, engine: str) -> Detection | None:
        """Return what is known of an engine; None when that is nothing, too old, or of another version."""
        now = self._clock.wall()
        wanted = "SELECT detection FROM engine_cache WHERE engine = :engine AND expires > :now"
        try:
            found = await self._database.read(lambda tx: tx.value(wanted, engine=engine, now=now))
            return None if found is None else fact(Detection, decode(found))
        except StoreError as error:
            logger.warning("cannot read what is known of {}: {}", engine, error)
        except UNREADABLE:
            logger.debug("what is known of {} was written by another version", engine)
        return None

    async def put(self, detection: Detection) -> None:
        """Remember what was found out, and forget what is too old."""
        now = self._clock.wall()

        def replace(tx: Transaction) -> None:
            tx.run("DELETE FROM engine_cache WHERE expires <= :now", now=now)
            tx.run(
                """
                INSERT INTO engine_cache (engine, detection, expires) VALUES (:engine, :detection, :expires)
                ON CONFLICT (engine) DO UPDATE SET detection = excluded.detection, expires = excluded.expires
                """,
                engine=detection.engine,
                detection=encode(asdict(detection)),
                expires=now + self.ttl,
            )

        try:
            await self._database.write(replace)
        except StoreError as error:
            logger.warning("cannot keep what was found out about {}: {}", detection.engine, error)

    async def drop(self, engine: str) -> None:
        """Forget an engine."""
        forget = "DELETE FROM engine_cache WHERE engine = :engine"
        try:
            await self._database.write(lambda tx: tx.run(forget, engine=engine))
        except StoreError as error:
            logger.warning("cannot forget what is known of {}: {}", engine, error)
