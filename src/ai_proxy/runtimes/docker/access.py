"""From where containers are reached: beside the proxy, on this machine, or on another."""

import os
from pathlib import Path

import psutil

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.settings import DockerSettings
from ai_proxy.runtimes.docker.api import DockerApi
from ai_proxy.runtimes.docker.host import find_address, machine_of
from ai_proxy.runtimes.docker.spec import Access, find_own_container, is_here, sharing_order


class AccessFinder:
    """Finds the most direct way to containers; what does not change is found out once.

    Args:
        settings: Complete: nothing comes from the environment any more.
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
        """Return from where containers are reached now.

        Raises:
            RuntimeFailureError: The settings do not fit what is there; says what to do.
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
        if self._networks is None:
            self._networks = await self._shared_with(self._container) if self._container else ()
        return self._networks

    async def _shared_with(self, container: str) -> tuple[str, ...]:
        facts, wanted = await self._api.inspect(container), self._settings.network
        if facts is None:
            if machine_of(self._api.host) is not None:
                return ()
            raise RuntimeFailureError(
                f"the proxy seems to run in container {container}, which this Docker engine does not "
                "know: give it the socket of the engine that runs it"
            )
        networks = sharing_order(facts["NetworkSettings"]["Networks"], wanted)
        if wanted is not None and wanted not in networks:
            raise RuntimeFailureError(
                f"the proxy's own container is not in network {wanted}: connect it, or correct "
                "server.docker.network"
            )
        return networks

    async def _is_here(self) -> bool:
        """Tell whether the engine's networks are this machine's."""
        if self._here is None:
            system, memory = os.uname(), psutil.virtual_memory().total
            self._here = is_here(await self._api.get("/info"), system.nodename, system.release, memory)
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
