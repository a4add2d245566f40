"""Dependencies of the endpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from ai_proxy.api.middleware import ANONYMOUS, OWNER, UNKNOWN_ADDRESS
from ai_proxy.control.events import EventBus
from ai_proxy.control.run_settings import SettingsHolder
from ai_proxy.control.views import ModelView, ReloadReport, ServiceView
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
    """What the management API needs of the control plane."""

    @property
    def events(self) -> EventBus:
        """Publishes changes of state."""

    def services(self) -> Sequence[ServiceView]:
        """Return the state of every service."""

    def service(self, service_id: str) -> ServiceView:
        """Return the state of one service.

        Raises:
            UnknownServiceError: No service has this id.
        """

    def models(self) -> Sequence[ModelView]:
        """Return every model, including those of stopped services."""

    def model(self, name: str) -> ModelView:
        """Return the model that a request with this name would use.

        Raises:
            UnknownModelError: No service offers it, or several do.
        """

    def offers(self) -> Sequence[Offer]:
        """Return what every service offers."""

    async def start(self, service_id: str, wait: float = 0) -> ServiceView:
        """Start a service, wait up to `wait` seconds until it is ready, and return its state.

        Raises:
            ProxyError: The start failed.
        """

    async def stop(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop a service and hold it stopped; wait up to `wait` seconds for its end."""

    async def restart(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop and start a service; wait up to `wait` seconds until it is ready again."""

    async def unload(self, service_id: str, wait: float = 0) -> ServiceView:
        """Stop a service, which the next request may start again; wait up to `wait` seconds for its end."""

    def logs(self, service_id: str) -> LogRing:
        """Return the last lines of a service's output.

        Raises:
            UnknownServiceError: No service has this id.
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
    """Looks up requests to models.

    Attributes:
        recent: Returns finished ones, newest first.
        live: Returns unfinished ones, in any order.
    """

    recent: Callable[[], Sequence[RequestRecord]] = tuple
    live: Callable[[], Sequence[LiveRequest]] = tuple


class ReadStore(Protocol):
    """What the management API reads from the store directly."""

    @property
    def audit(self) -> AuditStore:
        """The audit log."""

    @property
    def usage(self) -> UsageStore:
        """Usage by key, model and day."""


class StoredState(Protocol):
    """What the management API needs of the state that survives a restart."""

    @property
    def security(self) -> Security:
        """Keys, policy and audit log."""

    @property
    def settings(self) -> SettingsHolder:
        """Settings that can be changed at run time."""

    @property
    def store(self) -> ReadStore:
        """For reading audit log and usage."""

    @property
    def clock(self) -> Clock:
        """Tells the time."""


@dataclass
class AuditEvent:
    """What the audit log says of a request beside its path; in `request.state.audit_event`.

    Attributes:
        target: The object that it changes; empty for the one in the path.
        detail: In words; empty without any.
    """

    target: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that the endpoints use; in `app.state.context`.

    Attributes:
        plane: The services to manage.
        metrics: Returns the content of `/metrics` and its content type.
        version: Of the program.
        addresses: Where the proxy listens; filled in when it does.
        requests: Looks up requests to models.
        engines: Detects engines that the proxy did not start.
        stored: Returns keys, policy, settings and audit log; or the error that endpoints about them answer.
        restarts: Returns the background work that failed and was restarted, by name.
    """

    plane: ControlPlane
    metrics: MetricsRenderer
    version: str
    addresses: Addresses
    requests: Requests
    engines: EngineDetector
    stored: Callable[[], StoredState | StoreError]
    restarts: Callable[[], Mapping[str, Restarts]]

    @property
    def state(self) -> StoredState | StoreError:
        """Keys, policy, settings and audit log; or the error that endpoints about them answer."""
        return self.stored()


type Allowed = Callable[[ModelView], bool]
"""Tells whether the caller may use a model."""


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _plane(request: Request) -> ControlPlane:
    return _context(request).plane


def _engines(request: Request) -> EngineDetector:
    return _context(request).engines


def _state(request: Request) -> StoredState:
    state = _context(request).state
    if isinstance(state, StoreError):
        raise StoreUnavailableError(state.detail) from state
    return state


def _principal(request: Request) -> str:
    return str(getattr(request.state, "principal", ANONYMOUS))


def _allowed(request: Request) -> Allowed:
    """Return what decides which models the caller may use, and so may see."""
    state, principal = _context(request).state, _principal(request)
    if isinstance(state, StoreError) or principal in (OWNER, ANONYMOUS):
        return lambda _: True
    key = state.security.keys.get(principal)
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
TheState = Annotated[StoredState, Depends(_state)]
TheAuditEvent = Annotated[AuditEvent, Depends(_audit_event)]
