"""A detector that finds what it is told to."""

from collections.abc import Sequence
from dataclasses import replace

from ai_proxy.core.detection import Detection, EngineState, UnknownEngineError


def detection(engine: str, state: EngineState = EngineState.RUNNING_HEALTHY, **facts: object) -> Detection:
    """Return a finding; `facts` replace those of an engine on this machine that lists one model."""
    plain = Detection(
        engine=engine,
        title=engine.title(),
        state=state,
        address="http://127.0.0.1:9",
        detail="lists 1 model",
        version="1.2.3",
        models=("tiny",),
        latency_ms=2.5,
        program=None,
        at=1_700_000_000.0,
    )
    return replace(plain, **facts)  # type: ignore[arg-type]


class FakeDetector:
    """Finds what it holds; implements `core.ports.EngineDetector`.

    Attributes:
        found: What it finds, by engine.
        asked: How it was asked: for which engine, and whether afresh.
        forgotten: Engines that it was told to forget.
    """

    def __init__(self, *detections: Detection) -> None:
        self.found = {one.engine: one for one in detections}
        self.asked: list[tuple[str | None, bool]] = []
        self.forgotten: list[str] = []

    async def detect(self, engine: str | None = None, *, fresh: bool = False) -> Sequence[Detection]:
        """Return what it holds."""
        self.asked.append((engine, fresh))
        if engine is None:
            return list(self.found.values())
        if engine not in self.found:
            raise UnknownEngineError(engine, tuple(self.found))
        return [self.found[engine]]

    async def forget(self, engine: str) -> None:
        """Remember that it was told to."""
        self.forgotten.append(engine)
