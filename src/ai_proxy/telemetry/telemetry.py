"""All that is measured and told, put together."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from loguru import logger

from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.ports import Clock, Recorder, Tracing
from ai_proxy.core.settings import TelemetrySettings
from ai_proxy.core.usage import RequestRecord
from ai_proxy.platform.tasks import Background
from ai_proxy.telemetry.metrics import Metrics, ServiceFacts
from ai_proxy.telemetry.otel.settings import Plan
from ai_proxy.telemetry.requests import RecentRequests

if TYPE_CHECKING:
    from ai_proxy.telemetry.otel.export import Export

MISSING = (
    "OpenTelemetry is configured, but {} is not installed: nothing is sent; "
    "install it with: pip install 'ai-inference-proxy[otel]'"
)


class Telemetry:
    """What the proxy measures, and to whom it tells it.

    Attributes:
        recorder: Is told of everything.
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
        """What the data plane asks for every request; None when no traces are made."""
        return self._export.tracing if self._export else None

    def recent(self) -> list[RequestRecord]:
        """Return the requests to models that ended last, the very last one first."""
        self.recorder.settle()
        return self._recent.newest()

    def listen(self, listener: Callable[[Sequence[RequestRecord]], None]) -> None:
        """Tell somebody of all requests to models that are over, in batches."""
        self._metrics.listen(listener)

    def metrics(self) -> tuple[bytes, str]:
        """Return everything in Prometheus' text format, and its content type."""
        from ai_proxy.telemetry.prometheus import render  # a web server comes with its package: only if asked

        return render(self._metrics.services, self._services(), self._background.restarts, self._version)

    def watch(
        self,
        services: Callable[[], Iterable[ServiceFacts]],
        listen: Callable[[Callable[[ServiceEvent], None]], object],
    ) -> None:
        """Follow the services.

        Args:
            services: Returns how they stand.
            listen: Is given what is to be told of every change of their states.
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
    """Measure, and send to a collector if one is configured; what is left is sent at the end.

    Args:
        settings: What the configuration says.
        environ: Has the `OTEL_*` variables, which come first.
        version: Of the program.
        host: Where the proxy listens.
        clock: Says when metrics are sent.
        background: Runs what sends metrics; its restarts are a metric.
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
    """Return what sends; None when nothing is to be sent, and when its packages are missing."""
    if not plan.targets:
        return None
    try:
        from ai_proxy.telemetry.otel.export import Export

        return Export(plan, metrics, version, host, clock, background)
    except ModuleNotFoundError as error:
        # The variables are often set for all programs of a machine: that must not keep this one from serving.
        logger.warning(MISSING, error.name)
    except Exception as error:  # noqa: BLE001 - the SDK raises all sorts of things at variables it cannot read
        logger.warning(
            "OpenTelemetry cannot be set up, nothing is sent; check the OTEL_* variables: {}", error
        )
    return None
