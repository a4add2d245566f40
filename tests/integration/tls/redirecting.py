"""Certificates as the proxy serves them: beside a gateway that redirects plain HTTP."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.rigs.admission import FakeAdmission
from tests.rigs.recorder import CollectingRecorder

from ai_proxy.core.ports import Clock
from ai_proxy.core.service import Upstream
from ai_proxy.core.settings import Limits, TlsSettings
from ai_proxy.gateway.listener import Gateway
from ai_proxy.platform.tasks import Background
from ai_proxy.tls.serve import serve_certificates


@asynccontextmanager
async def empty_gateway(limits: Limits | None = None) -> AsyncIterator[Gateway]:
    """Run a gateway that has no services and has bound no address."""
    nowhere = Upstream("localhost", 80, unix_path="/nonexistent")
    gateway = Gateway(
        FakeAdmission({}),
        CollectingRecorder(),
        limits or Limits(shutdown_timeout=0.2),
        nowhere,
        Background(),
        sweep_interval=0.02,
    )
    try:
        yield gateway
    finally:
        await gateway.close()


@asynccontextmanager
async def served_certificates(
    settings: TlsSettings, folder: Path, host: str, port: int, clock: Clock
) -> AsyncIterator[ssl.SSLContext | None]:
    """Serve certificates as the proxy does."""
    background = Background()
    async with (
        empty_gateway() as gateway,
        serve_certificates(settings, folder, host, port, clock, background, gateway.redirect) as context,
    ):
        yield context
