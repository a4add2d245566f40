"""How the proxy reaches containers: in its own network, on this machine, or on another."""

import asyncio
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from ai_proxy.core.detection import is_loopback
from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.settings import DockerSettings
from ai_proxy.runtimes.docker.answers import SystemInfo
from ai_proxy.runtimes.docker.api import DockerApi

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Access:
    """How the proxy reaches containers.

    Attributes:
        address: Where their ports are published.
        networks: Networks of the proxy's own container, the preferred one first. Services share one of them,
            and need no published port. Empty when the proxy runs on the host.
        gateways: Addresses of this machine when the engine runs on it: the proxy reaches a container with
            such a gateway at its own address. This works while the engine is away, and avoids the engine's
            userland proxy, which copies every byte.
    """

    address: str = LOOPBACK
    networks: tuple[str, ...] = ()
    gateways: frozenset[str] = frozenset()

    def join(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Return the networks a container joins so that it can be reached.

        >>> Access().join(("models",)), Access(networks=("mine",)).join(())
        (('models',), ('mine',))
        >>> Access(networks=("mine",)).join(("models",))
        ('models', 'mine')
        """
        if not self.networks or set(wanted) & set(self.networks):
            return wanted
        return (*wanted, self.networks[0])


class AccessFinder:
    """Finds the most direct way to containers, and keeps what cannot change.

    Args:
        settings: With what the environment adds (`fill_in`).
        api: Of the engine.
        container: Name or id of the container that the proxy itself runs in; None when it runs on the host.
    """

    def __init__(self, settings: DockerSettings, api: DockerApi, container: str | None) -> None:
        self._settings = settings
        self._api = api
        self._container = container
        self._networks: tuple[str, ...] | None = None
        self._here: bool | None = None
        self._address: str | None = None

    def __repr__(self) -> str:
        return f"<AccessFinder {self._container or 'on the host'}>"

    async def find(self) -> Access:
        """Return how to reach containers now.

        Raises:
            RuntimeFailureError: The settings do not match the machine; says what to do.
        """
        if self._settings.address is None:
            if networks := await self._own_networks():
                return Access(networks=networks)
            if await self._is_here():
                return Access(gateways=own_addresses())
        if self._address is None:
            self._address = await find_address(self._settings.address or machine_of(self._api.host))
        return Access(self._address)

    async def _own_networks(self) -> tuple[str, ...]:
        """Return the networks of the proxy's own container; none without one, or with a remote engine."""
        if self._networks is not None or self._container is None:
            return self._networks or ()
        found, wanted = await self._api.inspect(self._container), self._settings.network
        if found is None and machine_of(self._api.host) is not None:
            self._networks = ()
            return ()
        if found is None:
            raise RuntimeFailureError(
                f"the proxy seems to run in container {self._container}, which this Docker engine does not "
                "know: give it the socket of the engine that runs it"
            )
        networks = sharing_order(found.network_settings.networks or (), wanted)
        if wanted is not None and wanted not in networks:
            raise RuntimeFailureError(
                f"the proxy's own container is not in network {wanted}: connect it, or correct "
                "server.docker.network"
            )
        self._networks = networks
        return networks

    async def _is_here(self) -> bool:
        """Return whether the engine's networks belong to this machine."""
        if self._here is None:
            system, memory = os.uname(), psutil.virtual_memory().total
            info = await self._api.get("/info", SystemInfo)
            self._here = is_here(info, system.nodename, system.release, memory)
        return self._here


def own_container() -> str | None:
    """Return the id of the container that this process runs in; None when it runs on the host."""
    try:
        return find_own_container(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    except OSError:
        return None


def own_addresses() -> frozenset[str]:
    """Return the addresses of this machine, bridges to containers included."""
    interfaces = psutil.net_if_addrs().values()
    return frozenset(address.address for addresses in interfaces for address in addresses)


def find_own_container(mounts: str) -> str | None:
    """Return the id of the container that this process runs in; None when there is none.

    Args:
        mounts: Its /proc/self/mountinfo: engines mount /etc/hostname from a folder named after the id.

    >>> find_own_container(f"7 1 8:1 /var/lib/docker/containers/{'ab' * 32}/hostname /etc/hostname rw")[:12]
    'abababababab'
    """
    match = re.search(r"/(?:overlay-)?containers/([0-9a-f]{64})/\S* /etc/", mounts)
    return match[1] if match else None


def is_here(info: SystemInfo, host: str, kernel: str, memory: int) -> bool:
    """Return whether an engine's networks belong to this machine: not to another, a VM or a rootless engine.

    Args:
        info: What the engine says of itself.
        host: Name of this machine.
        kernel: Release of its kernel.
        memory: Its memory in bytes.

    >>> is_here(SystemInfo("box", "6.1", 8, ["name=seccomp"]), "box", "6.1", 8)
    True
    >>> is_here(SystemInfo("box", "6.1", 8, ["name=rootless"]), "box", "6.1", 8)
    False
    """
    rootless = any("rootless" in option for option in info.security_options or ())
    return not rootless and (info.name, info.kernel_version, info.mem_total) == (host, kernel, memory)


def sharing_order(networks: Iterable[str], preferred: str | None) -> tuple[str, ...]:
    """Return the proxy's own networks that other containers can join, the preferred one first.

    >>> sharing_order(["models", "back", "none"], None), sharing_order(["models", "back"], "models")
    (('back', 'models'), ('models', 'back'))
    """
    usable = set(networks) - {"host", "none"}
    return tuple(sorted(usable, key=lambda name: (name != preferred, name)))


def machine_of(host: str | None) -> str | None:
    """Return the machine that the URL of an engine names; None for this one.

    >>> machine_of("tcp://10.0.0.5:2376"), machine_of("ssh://me@gpu-box"), machine_of("unix:///run/docker.sock")
    ('10.0.0.5', 'gpu-box', None)
    >>> machine_of("tcp://localhost:2375"), machine_of("tcp://127.0.0.1:2375")
    (None, None)
    """
    url = urlsplit(host or "")
    name = url.hostname if url.scheme in ("tcp", "http", "https", "ssh") else None
    return None if name is None or is_loopback(name) else name


async def find_address(machine: str | None) -> str:
    """Return the IP address of a machine, since Docker publishes on addresses only; None: this one.

    Raises:
        RuntimeFailureError: Its name cannot be resolved.
    """
    if machine is None:
        return LOOPBACK
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(machine, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RuntimeFailureError(
            f"the name {machine} cannot be resolved ({error.strerror}): set server.docker.address"
        ) from error
    first = min(found, key=lambda entry: entry[0] is not socket.AF_INET)
    return str(first[4][0])
