"""A cache of detections in memory."""

from ai_proxy.core.detection import Detection
from ai_proxy.core.ports import Clock


class MemoryCache:
    """Drops entries older than its time to live; implements `core.ports.EngineCache`.

    Args:
        clock: The time.
        ttl: Time to live, in seconds.
    """

    def __init__(self, clock: Clock, ttl: float) -> None:
        self._clock = clock
        self.ttl = ttl
        self._kept: dict[str, tuple[float, Detection]] = {}

    def __repr__(self) -> str:
        return f"<MemoryCache [{', '.join(self._kept)}]>"

    async def get(self, engine: str) -> Detection | None:
        """Return the detection of an engine; None when there is none, or it is too old."""
        self._drop_old()
        kept = self._kept.get(engine)
        return kept[1] if kept else None

    async def put(self, detection: Detection) -> None:
        """Store a detection."""
        self._drop_old()
        self._kept[detection.engine] = (self._clock.now() + self.ttl, detection)

    async def drop(self, engine: str) -> None:
        """Drop the detection of an engine."""
        self._kept.pop(engine, None)

    def _drop_old(self) -> None:
        now = self._clock.now()
        self._kept = {name: kept for name, kept in self._kept.items() if now < kept[0]}
