"""What the endpoints work with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from ai_proxy.control.events import EventBus
from ai_proxy.control.views import ReloadReport, ServiceView
from ai_proxy.core.logring import LogRing


class ControlPlane(Protocol):
    """All that the management API asks of the control plane."""

    @property
    def events(self) -> EventBus:
        """Where changes of state are told."""

    def services(self) -> Sequence[ServiceView]:
        """Return every service as it stands."""

    def service(self, service_id: str) -> ServiceView:
        """Return one service as it stands.

        Raises:
            UnknownServiceError: None is called that.
        """

    async def start(self, service_id: str, wait: float = 0) -> ServiceView:
        """Start it by hand, wait up to `wait` seconds until it is ready, and return how it stands then.

        Raises:
            ProxyError: It failed meanwhile.
        """

    async def stop(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop it by hand and hold it stopped; wait up to `wait` seconds for proof."""

    async def restart(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop and start it, wait up to `wait` seconds until it is ready again."""

    async def unload(self, service_id: str, wait: float = 0) -> ServiceView:
        """Free it; the next request may start it again. Wait up to `wait` seconds for proof."""

    def logs(self, service_id: str) -> LogRing:
        """Return the last lines of its output.

        Raises:
            UnknownServiceError: None is called that.
        """

    async def reload(self) -> ReloadReport:
        """Read the configuration again and apply what changed.

        Raises:
            InvalidConfigError: It has errors; nothing was changed.
        """


type MetricsRenderer = Callable[[], tuple[bytes, str]]
"""Returns all metrics and their content type."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the application is built around; lies in `app.state.context`."""

    plane: ControlPlane
    metrics: MetricsRenderer
    version: str


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _plane(request: Request) -> ControlPlane:
    return _context(request).plane


def _principal(request: Request) -> str:
    return str(getattr(request.state, "principal", ANONYMOUS))


OWNER = "owner"
"""The principal behind the owner's door: whoever may open the socket file."""

ANONYMOUS = "anonymous"
"""The principal whom nobody has asked for a name."""

TheContext = Annotated[Context, Depends(_context)]
Plane = Annotated[ControlPlane, Depends(_plane)]
Principal = Annotated[str, Depends(_principal)]
