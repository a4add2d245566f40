"""Where services listen, so that one is never taken for another that was found."""

from collections.abc import Iterable, Sequence

from ai_proxy.core.detection import Spot, spot
from ai_proxy.core.service import DockerLaunch, ProcessLaunch, RuntimeKind, Service, Upstream


def places(service: Service) -> frozenset[Spot]:
    """Return where a service listens, as far as its declaration says."""
    match service.launch:
        case ProcessLaunch(port=int(port)) | DockerLaunch(host_port=int(port)):
            return frozenset({spot("127.0.0.1", port)})
        case ProcessLaunch() | DockerLaunch():
            return frozenset()
        case external:
            return frozenset(_places(external.upstreams))


def _places(upstreams: Iterable[Upstream]) -> Iterable[Spot]:
    return (spot(one.host, one.port) for one in upstreams if one.unix_path is None)


def own_places(running: Iterable[tuple[Service, Sequence[Upstream]]]) -> dict[Spot, str]:
    """Return where what the proxy itself runs listens, or may, and which service that is."""
    owned: dict[Spot, str] = {}
    for service, upstreams in running:
        if service.launch.runtime is not RuntimeKind.EXTERNAL:
            owned |= dict.fromkeys((*places(service), *_places(upstreams)), f"service {service.id!r}")
    return owned


def undeclared(found: Iterable[Service], declared: Sequence[Service]) -> tuple[Service, ...]:
    """Return the services found that no declared one has the name or an address of."""
    names = {service.id for service in declared}
    taken = {place for service in declared for place in places(service)}
    return tuple(one for one in found if one.id not in names and taken.isdisjoint(places(one)))
