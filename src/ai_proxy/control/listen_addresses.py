"""The addresses services listen on; discovery uses them to skip engines that are already declared."""

from collections.abc import Iterable, Sequence

from ai_proxy.core.detection import SocketAddress, socket_address
from ai_proxy.core.service import DockerLaunch, ExternalLaunch, ProcessLaunch, Service, Upstream


def listen_addresses(service: Service) -> frozenset[SocketAddress]:
    """Return the addresses a service listens on, as far as its declaration fixes them."""
    match service.launch:
        case ProcessLaunch(port=int(port)) | DockerLaunch(host_port=int(port)):
            return frozenset({socket_address("127.0.0.1", port)})
        case ExternalLaunch(upstreams):
            return frozenset(_tcp_addresses(upstreams))
        case _:
            return frozenset()


def _tcp_addresses(upstreams: Iterable[Upstream]) -> Iterable[SocketAddress]:
    return (socket_address(one.host, one.port) for one in upstreams if one.unix_path is None)


def own_addresses(running: Iterable[tuple[Service, Sequence[Upstream]]]) -> dict[SocketAddress, str]:
    """Return the addresses of the services that the proxy itself runs, and which service has each."""
    owned: dict[SocketAddress, str] = {}
    for service, upstreams in running:
        addresses = (*listen_addresses(service), *_tcp_addresses(upstreams))
        owned |= dict.fromkeys(addresses, f"service {service.id!r}")
    return owned


def undeclared(found: Iterable[Service], declared: Sequence[Service]) -> tuple[Service, ...]:
    """Return the found services that share neither a name nor an address with a declared one."""
    names = {service.id for service in declared}
    taken = {address for service in declared for address in listen_addresses(service)}
    return tuple(one for one in found if one.id not in names and taken.isdisjoint(listen_addresses(one)))
