"""What was found out about engines, kept for a while, also over a restart."""

from dataclasses import asdict
from typing import Any

from loguru import logger
from sqlalchemy import delete, select

from ai_proxy.core.detection import Detection, EngineState
from ai_proxy.core.errors import StoreError
from ai_proxy.core.ports import Clock
from ai_proxy.persistence.database import Database
from ai_proxy.persistence.sql import upsert
from ai_proxy.persistence.tables import engine_cache


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
        """Return what is known of an engine; None when that is nothing, or too old."""
        wanted = select(engine_cache.c.detection).where(
            engine_cache.c.engine == engine, engine_cache.c.expires > self._clock.wall()
        )
        try:
            async with self._database.reading() as connection:
                return _detection(await connection.scalar(wanted))
        except StoreError as error:
            logger.warning("what is known of {} is not read: {}", engine, error)
            return None

    async def put(self, detection: Detection) -> None:
        """Remember what was found out, and forget what is too old."""
        now = self._clock.wall()
        row = {"engine": detection.engine, "detection": asdict(detection), "expires": now + self.ttl}
        try:
            async with self._database.writing() as connection:
                await connection.execute(delete(engine_cache).where(engine_cache.c.expires <= now))
                await upsert(connection, engine_cache, [row])
        except StoreError as error:
            logger.warning("what was found out about {} is not kept: {}", detection.engine, error)

    async def drop(self, engine: str) -> None:
        """Forget an engine."""
        try:
            async with self._database.writing() as connection:
                await connection.execute(delete(engine_cache).where(engine_cache.c.engine == engine))
        except StoreError as error:
            logger.warning("{} is not forgotten: {}", engine, error)


def _detection(document: Any) -> Detection | None:
    """Read a finding; None for none, or for one that another version wrote."""
    if document is None:
        return None
    try:
        state, models = EngineState(document["state"]), tuple(document["models"])
        return Detection(**{**document, "state": state, "models": models})
    except (KeyError, TypeError, ValueError):
        return None
