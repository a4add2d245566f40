"""Services that run on their own: health checks watch them; the proxy neither starts nor ends them."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import nullcontext

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.logring import LogRing
from ai_proxy.core.placement import Placement
from ai_proxy.core.ports import RuntimeCapabilities, Tell
from ai_proxy.core.service import Exit, ExternalLaunch, Handle, Report, RuntimeKind, Service
from ai_proxy.runtimes.base import Reports, RuntimeDescriptor

UNUSED = Exit(None, "no longer used")


class ExternalRuntime:
    """Starting one begins its use, stopping ends its use; implements `core.ports.Runtime`."""

    capabilities = RuntimeCapabilities(owns=False)

    def __init__(self) -> None:
        self._in_use: dict[Handle, Reports] = {}
        self._ring = LogRing(capacity=1)

    def __repr__(self) -> str:
        return f"<ExternalRuntime [{len(self._in_use)} in use]>"

    async def start(self, service: Service, placement: Placement, tell: Tell) -> Handle:  # noqa: ARG002
        """Return at once; the engine's probe finds out whether it answers."""
        launch = service.launch
        if not isinstance(launch, ExternalLaunch) or not launch.upstreams:
            raise RuntimeFailureError(f"{service.id} has no url: give the address where it answers")
        handle = Handle(service.id, service.config_hash, launch.upstreams[0].url, 0.0, launch.upstreams)
        self._in_use.setdefault(handle, Reports())
        return handle

    async def stop(self, handle: Handle, grace: float) -> None:  # noqa: ARG002
        """End its use; it goes on running."""
        if reports := self._in_use.pop(handle, None):
            reports.publish(UNUSED)

    def watch(self, handle: Handle) -> AsyncGenerator[Report]:
        """Report the exit when its use ends."""
        return (self._in_use.get(handle) or Reports(UNUSED)).follow()

    async def handles(self) -> Sequence[Handle]:
        """Return nothing, since the proxy owns none of it."""
        return ()

    def logs(self, service_id: str) -> LogRing:  # noqa: ARG002
        """Return an empty ring, since its output is not available."""
        return self._ring

    def listener_fault(self, handle: Handle) -> str:  # noqa: ARG002
        """Return nothing: nobody else can be told from it."""
        return ""


EXTERNAL = RuntimeDescriptor(RuntimeKind.EXTERNAL, lambda _: nullcontext(ExternalRuntime()))
