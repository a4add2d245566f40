"""Recording, `/metrics`, recent requests and the export over OpenTelemetry, behind one object."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from loguru import logger

from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.ports import Clock, Recorder, Tracing
from ai_proxy.core.settings import TelemetrySettings
from ai_proxy.core.usage import RequestRecord
from ai_proxy.platform.extras import how_to_install
from ai_proxy.platform.tasks import Background
from ai_proxy.telemetry.metrics import Metrics, ServiceFacts
from ai_proxy.telemetry.otel.settings import Plan

if TYPE_CHECKING:
    from ai_proxy.telemetry.otel.export import Export

MAX_RECENT = 500
"""Finished requests that are kept, of about half a kilobyte each."""

MISSING = "OpenTelemetry is configured, but {} is not installed, so nothing is exported; install it with: {}"


class RecentRequests:
    """The last finished requests to models.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int = MAX_RECENT) -> None:
        self._ring: deque[RequestRecord] = deque(maxlen=size)
        self.add = self._ring.extend

    def __repr__(self) -> str:
        return f"<RecentRequests [{len(self._ring)} of {self._ring.maxlen}]>"

    def newest(self) -> list[RequestRecord]:
        """Return them, newest first."""
        return list(reversed(self._ring))


class Telemetry:
    """What the proxy measures, and who gets it.

    Attributes:
        recorder: Records everything.
    """

    def __init__(
        self, version: str, metrics: Metrics, background: Background, export: "Export | None" = None
    ) -> None:
        self._version = version
        self._background = background
        self._metrics = metrics
        self._export = export
        self._services: Callable[[], Iterable[ServiceFacts]] = tuple
        self._recent = RecentRequests()
        self.recorder: Recorder = metrics
        for listener in (self._recent.add, *(export.request_listeners if export else ())):
            metrics.listen(listener)

    @property
    def tracing(self) -> Tracing | None:
        """Decides for every request whether it is traced; None without tracing."""
        return self._export.tracing if self._export else None

    def recent(self) -> list[RequestRecord]:
        """Return the last finished requests to models, newest first."""
        self.recorder.settle()
        return self._recent.newest()

    def listen(self, listener: Callable[[Sequence[RequestRecord]], None]) -> None:
        """Call `listener` with batches of all finished requests to models."""
        self._metrics.listen(listener)

    def metrics(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and its content type; called on the event loop."""
        from ai_proxy.telemetry.prometheus import (
            render,  # its package brings a web server: imported on demand
        )

        tasks = len(asyncio.all_tasks())
        services = self._services()
        return render(self._metrics.services, services, self._background.restarts, tasks, self._version)

    def watch(
        self,
        services: Callable[[], Iterable[ServiceFacts]],
        listen: Callable[[Callable[[ServiceEvent], None]], object],
    ) -> None:
        """Export the state of the services.

        Args:
            services: Returns their current state.
            listen: Registers a listener for their events.
        """
        self._services = services
        if self._export:
            self._export.watch(services)
            listen(self._export.event)


@asynccontextmanager
async def open_telemetry(
    settings: TelemetrySettings,
    environ: Mapping[str, str],
    version: str,
    host: str,
    clock: Clock,
    background: Background,
) -> AsyncIterator[Telemetry]:
    """Record, and export to a collector if one is configured; the rest is exported at the end.

    Args:
        settings: The section of the configuration.
        environ: Has the `OTEL_*` variables, which take precedence.
        version: Of the program.
        host: Where the proxy listens.
        clock: Times the export of metrics.
        background: Runs the export; its restarts are a metric.
    """
    plan, metrics = Plan.of(settings, environ), Metrics()
    for complaint in plan.complaints:
        logger.warning("telemetry: {}", complaint)
    export = _export(plan, metrics, version, host, clock, background)
    try:
        yield Telemetry(version, metrics, background, export)
    finally:
        metrics.settle()
        if export:
            await export.close()


def _export(
    plan: Plan, metrics: Metrics, version: str, host: str, clock: Clock, background: Background
) -> "Export | None":
    """Return the export; None when there is nothing to export, or when a package is missing."""
    if not plan.targets:
        return None
    try:
        from ai_proxy.telemetry.otel.export import Export

        return Export(plan, metrics, version, host, clock, background)
    except ModuleNotFoundError as error:
        # The variables are often set for every program of a machine: they must not stop this one.
        logger.warning(MISSING, error.name, how_to_install("otel"))
    except Exception as error:  # noqa: BLE001 - the SDK raises anything for variables that it cannot read
        logger.warning(
            "cannot set up OpenTelemetry, nothing is exported; check the OTEL_* variables: {}", error
        )
    return None
