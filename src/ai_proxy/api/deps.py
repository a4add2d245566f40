"""What the endpoints work with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from ai_proxy.api.middleware import ANONYMOUS, OWNER, UNKNOWN_ADDRESS
from ai_proxy.control.events import EventBus
from ai_proxy.control.run_settings import SettingsHolder
from ai_proxy.control.views import ModelView, ReloadReport, ServiceView
from ai_proxy.core.detection import Detection
from ai_proxy.core.errors import StoreError, StoreUnavailableError
from ai_proxy.core.keys import allows_model
from ai_proxy.core.logring import LogRing
from ai_proxy.core.ports import Clock, EngineDetector
from ai_proxy.core.routing import Offer
from ai_proxy.core.store_ports import AuditStore, UsageStore
from ai_proxy.core.usage import LiveRequest, RequestRecord
from ai_proxy.platform.addresses import Addresses
from ai_proxy.platform.tasks import Restarts
from ai_proxy.security.security import Security


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

    def models(self) -> Sequence[ModelView]:
        """Return every model that can be asked for, those of stopped services included."""

    def model(self, name: str) -> ModelView:
        """Return a model by any name that a request may say.

        Raises:
            UnknownModelError: No service answers to that name, or several do alike.
        """

    def offers(self) -> Sequence[Offer]:
        """Return what the services offer to those who ask for a model."""

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
class Requests:
    """Where the requests to models are looked up.

    Attributes:
        recent: Returns those that ended last, the last one first.
        live: Returns those that are not over, in any order.
    """

    recent: Callable[[], Sequence[RequestRecord]] = tuple
    live: Callable[[], Sequence[LiveRequest]] = tuple


class NoEngines:
    """Finds none: what an application has that was given nothing to find them with."""

    async def detect(self, engine: str | None = None, *, fresh: bool = False) -> Sequence[Detection]:  # noqa: ARG002
        """Return nothing."""
        return ()

    async def forget(self, engine: str) -> None:
        """Do nothing."""


class KeptStore(Protocol):
    """What the management API reads of the store by itself."""

    @property
    def audit(self) -> AuditStore:
        """The audit log."""

    @property
    def usage(self) -> UsageStore:
        """Counts of what was used."""


class Keeping(Protocol):
    """All that the management API asks of what lasts."""

    @property
    def security(self) -> Security:
        """Keys, policy, and the audit log to be written to."""

    @property
    def settings(self) -> SettingsHolder:
        """Settings that are changed at run time."""

    @property
    def store(self) -> KeptStore:
        """What is only read."""

    @property
    def clock(self) -> Clock:
        """Tells the time."""


NOTHING_KEPT = StoreUnavailableError("this proxy runs without a store: it keeps no keys, policy or settings")


@dataclass
class AuditEvent:
    """What a request does, for the audit log; lies in `request.state.audit_event`.

    Attributes:
        target: To what it is done; empty for what the path says.
        detail: In words; empty for nothing to add.
    """

    target: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What the application is built around; lies in `app.state.context`."""

    plane: ControlPlane
    metrics: MetricsRenderer
    version: str
    addresses: Addresses
    requests: Requests
    engines: EngineDetector
    keeping: Keeping | StoreError
    restarts: Callable[[], Mapping[str, Restarts]]


type Allowed = Callable[[ModelView], bool]
"""Tells whether a caller may ask a model."""


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _plane(request: Request) -> ControlPlane:
    return _context(request).plane


def _engines(request: Request) -> EngineDetector:
    return _context(request).engines


def _keeping(request: Request) -> Keeping:
    keeping = _context(request).keeping
    if isinstance(keeping, StoreError):
        raise StoreUnavailableError(keeping.detail) from keeping
    return keeping


def _principal(request: Request) -> str:
    return str(getattr(request.state, "principal", ANONYMOUS))


def _allowed(request: Request) -> Allowed:
    """Return whether the caller may ask a model: nobody is shown what their key is not for."""
    keeping, principal = _context(request).keeping, _principal(request)
    if isinstance(keeping, StoreError) or principal in (OWNER, ANONYMOUS):
        return lambda _: True
    key = keeping.security.keys.get(principal)
    return lambda view: allows_model(key, *view.names)


def _address(request: Request) -> str:
    return str(getattr(request.state, "address", UNKNOWN_ADDRESS))


def _audit_event(request: Request) -> AuditEvent:
    audit_event: AuditEvent = request.state.audit_event
    return audit_event


TheContext = Annotated[Context, Depends(_context)]
Plane = Annotated[ControlPlane, Depends(_plane)]
Engines = Annotated[EngineDetector, Depends(_engines)]
Principal = Annotated[str, Depends(_principal)]
AllowedModels = Annotated[Allowed, Depends(_allowed)]
Address = Annotated[str, Depends(_address)]
Kept = Annotated[Keeping, Depends(_keeping)]
TheAuditEvent = Annotated[AuditEvent, Depends(_audit_event)]
