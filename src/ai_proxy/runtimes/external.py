"""Services that somebody else runs: watched by their engine's probes, never started or ended by us."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import nullcontext

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.logring import LogRing
from ai_proxy.core.placement import Placement
from ai_proxy.core.ports import RuntimeCapabilities, Tell
from ai_proxy.core.service import Exit, ExternalLaunch, Handle, Report, RuntimeKind, Service
from ai_proxy.runtimes.base import RuntimeDescriptor


class ExternalRuntime:
    """To start is to begin to use, to stop is to cease; implements `core.ports.Runtime`."""

    capabilities = RuntimeCapabilities(owns=False)

    def __init__(self) -> None:
        self._in_use: dict[Handle, asyncio.Event] = {}
        self._ring = LogRing(capacity=1)

    def __repr__(self) -> str:
        return f"<ExternalRuntime [{len(self._in_use)} in use]>"

    async def start(self, service: Service, placement: Placement, tell: Tell) -> Handle:  # noqa: ARG002
        """Return at once: whether it answers is for the engine to find out."""
        launch = service.launch
        if not isinstance(launch, ExternalLaunch) or not launch.upstreams:
            raise RuntimeFailureError(f"{service.id} has no url: give the address where it answers")
        handle = Handle(service.id, service.config_hash, launch.upstreams[0].url, 0.0, launch.upstreams)
        self._in_use.setdefault(handle, asyncio.Event())
        return handle

    async def stop(self, handle: Handle, grace: float) -> None:  # noqa: ARG002
        """Cease to use it; it runs on."""
        if ceased := self._in_use.pop(handle, None):
            ceased.set()

    async def watch(self, handle: Handle) -> AsyncGenerator[Report, None]:
        """Report the exit when it is no longer used."""
        if ceased := self._in_use.get(handle):
            await ceased.wait()
        yield Exit(None, "no longer used")

    async def handles(self) -> Sequence[Handle]:
        """Return nothing: none of it is ours."""
        return ()

    def logs(self, service_id: str) -> LogRing:  # noqa: ARG002
        """Return an empty ring: its output is not ours to see."""
        return self._ring


EXTERNAL = RuntimeDescriptor(RuntimeKind.EXTERNAL, lambda _: nullcontext(ExternalRuntime()))
