import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from tests.rigs.otlp_sink import OtlpSink, otlp_sink

from ai_proxy.core.settings import TelemetrySettings
from ai_proxy.platform.clock import SystemClock
from ai_proxy.platform.tasks import Background
from ai_proxy.telemetry.telemetry import Telemetry, open_telemetry

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

type Open = Callable[..., AbstractAsyncContextManager[Telemetry]]


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with otlp_sink() as running:
        yield running


@pytest.fixture
def opened() -> Open:
    """Return what opens telemetry as the program does; `environ` has the variables."""

    @asynccontextmanager
    async def open_it(
        settings: TelemetrySettings | None = None, environ: dict[str, str] | None = None
    ) -> AsyncIterator[Telemetry]:
        given = settings or TelemetrySettings()
        async with open_telemetry(
            given, environ or {}, "1.2.3", "127.0.0.1", SystemClock(), Background()
        ) as telemetry:
            yield telemetry

    return open_it


def promtool() -> str:
    """Return the path of Prometheus' own checker; without it tests skip."""
    if (found := shutil.which("promtool")) is None:
        reason = "promtool is not installed; on Debian: apt-get install prometheus"
        pytest.skip(reason)
    return found
