"""Engines that run by themselves, offered while they are there."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from loguru import logger

from ai_proxy.control.plane import ControlPlane
from ai_proxy.core.detection import Detection, EngineState
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event
from ai_proxy.core.ports import Clock, EngineDetector
from ai_proxy.core.service import Service
from ai_proxy.core.settings import EngineSettings
from ai_proxy.platform.clock import wait_event
from ai_proxy.platform.tasks import Background

SOON = 5.0
"""Seconds until the next look while an engine is busy, loads, or is missed; doubled while that lasts."""
MAX_SOON = 60.0
"""Longest time, in seconds, until the next look at such an engine."""

CHANGES = frozenset({Event.START, Event.EXITED})
"""Events of a service that the proxy runs, after which its engine is in another state."""

type Declare = Callable[[Mapping[str, str]], Sequence[Service]]
"""Returns the services for engines found, given their URLs."""


def is_offered(detection: Detection, *, already: bool) -> bool:
    """Return whether to offer an engine: a healthy or slow one, and a busy one that was offered before."""
    if detection.state is EngineState.RUNNING_DEGRADED:
        return already or bool(detection.models)
    return detection.state is EngineState.RUNNING_HEALTHY


def is_unsure(detection: Detection, *, known: bool) -> bool:
    """Return whether to look again soon: at a busy or loading one, and at one that was there before."""
    if detection.state is EngineState.RUNNING_DEGRADED:
        return True
    return known and detection.state is not EngineState.RUNNING_HEALTHY


def forget_changed(
    plane: ControlPlane, detector: EngineDetector, background: Background
) -> Callable[[ServiceEvent], None]:
    """Return a listener that has an engine asked again when a service of it was started or has ended."""

    def hear(event: ServiceEvent) -> None:
        if event.event not in CHANGES:
            return
        for service, _ in plane.owned():
            if service.id == event.service_id:
                background.run(partial(detector.forget, service.engine), "forget engines")

    return hear


class Discovery:
    """Keeps the engines that run by themselves among the services, while they are there.

    Args:
        plane: Offers them.
        detector: Finds them.
        declare: Makes services of them.
        clock: Returns the time.
        settings: Whether to look for engines, and how often.
    """

    def __init__(
        self,
        plane: ControlPlane,
        detector: EngineDetector,
        declare: Declare,
        clock: Clock,
        settings: EngineSettings,
    ) -> None:
        self._plane = plane
        self._detector = detector
        self._declare = declare
        self._clock = clock
        self._settings = settings
        self._offered: Mapping[str, str] = {}
        self._known: set[str] = set()
        self._unsure: set[str] = set()
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Discovery [{', '.join(self._offered)}]>"

    def adapt(self, settings: EngineSettings) -> None:
        """Use other settings from now on; what may no longer be looked for is no longer offered."""
        self._settings = settings
        self._news.set()

    async def run(self) -> None:
        """Look now, and again and again, until cancelled; at once when an engine that was found fails."""
        stop = self._plane.events.listen(self._hear)
        soon = SOON
        try:
            while True:
                before = self._unsure
                await self._look()
                soon = min(2 * soon, MAX_SOON) if self._unsure == before else SOON
                interval = self._settings.cache_ttl
                pause = min(soon, interval) if self._unsure else interval
                await wait_event(self._clock, self._news, until=self._clock.now() + pause)
                for engine in sorted(self._unsure):
                    await self._detector.forget(engine)
        finally:
            stop()

    async def _look(self) -> None:
        self._news.clear()
        detections = await self._detector.detect() if self._settings.detect else ()
        offered = {
            one.engine: one.address
            for one in detections
            if is_offered(one, already=self._offered.get(one.engine) == one.address)
        }
        self._known |= offered.keys()
        self._unsure = {one.engine for one in detections if is_unsure(one, known=one.engine in self._known)}
        if offered != self._offered:
            self._tell(offered)
            self._offered = offered
            await self._plane.discover(self._declare(offered))

    def _tell(self, offered: Mapping[str, str]) -> None:
        for engine, address in offered.items() - self._offered.items():
            logger.info("found {} running at {}", engine, address)
        for engine in self._offered.keys() - offered.keys():
            logger.info("{} is no longer offered", engine)

    def _hear(self, event: ServiceEvent) -> None:
        if event.service_id in self._offered and event.event is Event.FAULT:
            self._unsure.add(event.service_id)
            self._news.set()
