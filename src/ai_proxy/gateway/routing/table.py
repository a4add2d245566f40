"""Where a request goes: an immutable snapshot of all services and models, and how a target is looked up."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from ai_proxy.core.abilities import Modality
from ai_proxy.core.errors import MalformedRequestError, UnknownPathError, UnknownServiceError
from ai_proxy.core.routing import ModelRoute, ModelTable, Offer, near_names
from ai_proxy.core.service import Service, Upstream
from ai_proxy.gateway.http.pool import Pool
from ai_proxy.gateway.http.wire import leads_up, origin_form

SERVICE_PREFIX = b"/service/"
MANAGEMENT = (
    *(b"/v1", b"/api", b"/docs", b"/redoc", b"/openapi.json"),
    *(b"/health", b"/ready", b"/metrics", b"/console"),
)


@dataclass(slots=True, eq=False)
class Destination:
    """A service, or the management app, as the data plane sees it.

    Attributes:
        service_id: Empty for the management app.
        engine: The software that answers; empty for the management app.
        response_timeout: Longest wait for the head of a response, in seconds; 0 for no limit.
        stream_idle_timeout: Longest silence within a response, in seconds; 0 for no limit.
        credentials: Header line by which the proxy shows the service's own key; empty without one.
        upstream: The address that `pool` belongs to; None before the first request.
        pool: Connections to the upstream used last, so that most requests need no look-up.
    """

    service_id: str
    engine: str = ""
    response_timeout: float = 0.0
    stream_idle_timeout: float = 0.0
    credentials: bytes = b""
    upstream: Upstream | None = None
    pool: Pool = field(init=False)


@dataclass(frozen=True, slots=True, eq=False)
class ModelDestination:
    """A model, with all that the data plane needs in order to ask for it.

    Attributes:
        route: Where it is.
        destination: The service.
        understood: Paths on which its engine answers.
        unchanged: Those of them on which plain requests are passed on as they are.
        text_only: Whether there is anything that it cannot take in a message.
    """

    route: ModelRoute
    destination: Destination
    understood: frozenset[str]
    unchanged: frozenset[str]
    text_only: bool

    @classmethod
    def of(cls, route: ModelRoute, destination: Destination) -> Self:
        """Derive it from a route."""
        service, understood = route.offer.service, frozenset(map(str, route.offer.abilities.endpoints))
        changes = service.set_params or service.default_params or service.drop_params
        unchanged = frozenset[str]() if changes or route.target != route.name else understood
        return cls(route, destination, understood, unchanged, len(route.modalities) < len(Modality))


type PlainReader = Callable[[bytes | bytearray], tuple[str, bool]]
"""Reads a small body that needs no change: its model, and whether it asks for a stream.

Raises one of `inference.prompt.UNREADABLE` at any other. Only one thread may use it.
"""


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """An immutable snapshot of all destinations; replaced as a whole.

    Attributes:
        management: The management app.
        read_plain: Reads the body of a request that no engine needs changed.
        services: By id.
        models: Where every model is.
        by_model: The models that can be asked for by one name.
    """

    management: Destination
    read_plain: PlainReader
    services: dict[bytes, Destination] = field(default_factory=dict)
    models: ModelTable = field(default_factory=ModelTable)
    by_model: dict[str, ModelDestination] = field(default_factory=dict)

    @classmethod
    def of(cls, offers: Iterable[Offer], management: Destination, read_plain: PlainReader) -> "RoutingTable":
        """Build a snapshot."""
        models = ModelTable.of(offers)
        services = {
            name: Destination(
                name,
                offer.service.engine,
                offer.service.response_timeout,
                offer.service.stream_idle_timeout,
                _credentials(offer.service),
            )
            for name, offer in models.offers.items()
        }
        by_model = {
            name: ModelDestination.of(route, services[route.offer.service.id])
            for name, route in models.routes.items()
        }
        by_path = {name.encode(): destination for name, destination in services.items()}
        return cls(management, read_plain, by_path, models, by_model)

    def find(self, model: str) -> ModelDestination:
        """Return a model by any name of it.

        Raises:
            UnknownModelError: No service answers to that name, or several do alike.
        """
        found = self.by_model.get(model)
        if found is None:
            route = self.models.find(model)
            found = ModelDestination.of(route, self.services[route.offer.service.id.encode()])
        return found

    def resolve(self, target: bytes) -> tuple[Destination, bytes]:
        """Return the destination of a target, and the target to ask of it.

        Raises:
            UnknownServiceError: `/service/{id}` names none that is declared.
            MalformedRequestError: The path has a segment `..`, which could leave the service's own path.
            UnknownPathError: Nothing answers there.
        """
        if target[:9] == SERVICE_PREFIX:
            if leads_up(target):
                raise MalformedRequestError(
                    "the path of a service must not have a segment '..', plain or percent-encoded"
                )
            slash = target.find(b"/", 9)
            destination = self.services.get(target[9:slash])
            if destination is not None and slash > 0:
                return destination, target[slash:]
            return self._resolve_service(target)
        if is_management(target):
            return self.management, target
        if target[:1] != b"/" and (path := origin_form(target)) != target:
            return self.resolve(path)
        raise UnknownPathError(
            "nothing answers on this path; models are under /v1/, services under /service/{id}/, the "
            "management API under /api/v1, its documentation under /docs"
        )

    def _resolve_service(self, target: bytes) -> tuple[Destination, bytes]:
        """Resolve what has no path after the service's name, or names none that is declared."""
        path, mark, query = target.partition(b"?")
        name, _, rest = path[len(SERVICE_PREFIX) :].partition(b"/")
        destination = self.services.get(name)
        if destination is None:
            raise self._unknown_service(name)
        return destination, b"/" + rest + mark + query

    def _unknown_service(self, name: bytes) -> UnknownServiceError:
        text = name.decode("utf-8", "replace")[:100]
        return UnknownServiceError(text, near_names(text, [known.decode() for known in self.services]))


def _credentials(service: Service) -> bytes:
    """Return the header line by which the proxy shows a service's own key."""
    return b"authorization: Bearer %b\r\n" % service.api_key.encode() if service.api_key else b""


def is_management(target: bytes) -> bool:
    """Tell whether the management app answers there.

    >>> is_management(b"/api/v1/services?x=1"), is_management(b"/docs"), is_management(b"/apix")
    (True, True, False)
    """
    if target == b"/":
        return True
    return any(
        target.startswith(prefix) and target[len(prefix) : len(prefix) + 1] in (b"", b"/", b"?")
        for prefix in MANAGEMENT
    )
