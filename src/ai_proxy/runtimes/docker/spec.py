"""From a service to the container that runs it, and back: what the Engine API is told and what it tells.

Everything here is pure. https://docs.docker.com/reference/api/engine/ (ContainerCreate, ContainerInspect)
"""

import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ai_proxy.core.service import DockerLaunch, Exit, Handle, Healthcheck, Service, Upstream
from ai_proxy.core.settings import MB

type Json = Mapping[str, Any]

OWNER = "ai-proxy.owner"
SERVICE = "ai-proxy.service"
CONFIG_HASH = "ai-proxy.config-hash"
VERSION = "ai-proxy.version"
PORT = "ai-proxy.port"

LOOPBACK = "127.0.0.1"

NOT_FOUND = 127
"""Exit code of Docker's init, and of shells, when there is no such program."""

LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
"""Readable through the API, whatever the engine's default is, and bounded on its disk."""


@dataclass(frozen=True, slots=True)
class Access:
    """From where containers are reached.

    Attributes:
        address: Where their ports are published.
        networks: Those of the proxy's own container, the one to share first; then nothing needs publishing,
            and services are reached at their address in a network they share with it. Empty when it runs on
            the host.
        gateways: Addresses of this machine when the engine is on it, too: a container whose gateway is among
            them is reached at its own address. That needs neither the engine, which may be away, nor its
            userland proxy, which copies every byte and dies with it.
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


def is_here(info: Json, host: str, kernel: str, memory: int) -> bool:
    """Tell whether an engine's networks are this machine's: it is not elsewhere, in a VM, or rootless.

    Args:
        info: What it says of itself (SystemInfo).
        host: Name of this machine.
        kernel: Release of its kernel.
        memory: Its memory in bytes.

    >>> info = {"Name": "box", "KernelVersion": "6.1", "MemTotal": 8, "SecurityOptions": ["name=seccomp"]}
    >>> is_here(info, "box", "6.1", 8)
    True
    >>> is_here(info | {"SecurityOptions": ["name=rootless"]}, "box", "6.1", 8)
    False
    """
    rootless = any("rootless" in option for option in info.get("SecurityOptions") or ())
    same = (info.get("Name"), info.get("KernelVersion"), info.get("MemTotal")) == (host, kernel, memory)
    return same and not rootless


def find_own_container(mounts: str) -> str | None:
    """Return the id of the container that this process runs in; None when there is none.

    Args:
        mounts: Its /proc/self/mountinfo: engines mount /etc/hostname from a folder that is named by the id.

    >>> find_own_container(f"7 1 8:1 /var/lib/docker/containers/{'ab' * 32}/hostname /etc/hostname rw")[:12]
    'abababababab'
    """
    match = re.search(r"/(?:overlay-)?containers/([0-9a-f]{64})/\S* /etc/", mounts)
    return match[1] if match else None


def sharing_order(networks: Iterable[str], preferred: str | None) -> tuple[str, ...]:
    """Return the networks of the proxy's own container in which others can be, the one to share first.

    >>> sharing_order(["models", "back", "none"], None), sharing_order(["models", "back"], "models")
    (('back', 'models'), ('models', 'back'))
    """
    usable = set(networks) - {"host", "none"}
    return tuple(sorted(usable, key=lambda name: (name != preferred, name)))


def container_name(service_id: str) -> str:
    """Return the name of a service's container."""
    return f"ai-proxy-{service_id}"


def make_labels(service: Service, launch: DockerLaunch, owner: str, version: str) -> dict[str, str]:
    """Return the labels by which a container is known as ours."""
    return {
        OWNER: owner,
        SERVICE: service.id,
        CONFIG_HASH: service.config_hash,
        VERSION: version,
        PORT: str(launch.port),
    }


def make_body(launch: DockerLaunch, labels: Mapping[str, str], access: Access) -> dict[str, Any]:
    """Return the body that creates a container; it joins its first network, the others by further calls."""
    port = f"{launch.port}/tcp"
    body: dict[str, Any] = {
        "Image": launch.image,
        "Env": [f"{name}={value}" for name, value in launch.env.items()],
        "Labels": dict(labels),
        "ExposedPorts": {port: {}},
        "HostConfig": _host_config(launch, access),
    }
    if launch.command:
        body["Entrypoint"] = list(launch.command)
    if launch.args:
        body["Cmd"] = list(launch.args)
    if launch.user is not None:
        body["User"] = launch.user
    if launch.healthcheck is not None:
        body["Healthcheck"] = _healthcheck(launch.healthcheck)
    return body


def _host_config(launch: DockerLaunch, access: Access) -> dict[str, Any]:
    config: dict[str, Any] = {
        "Init": True,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": LOG_CONFIG,
        "PortBindings": _published(launch, access),
        "Mounts": [
            {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
            for mount in launch.mounts
        ],
        "DeviceRequests": device_requests(launch.gpus),
        "ReadonlyRootfs": launch.read_only,
        "CapDrop": list(launch.cap_drop),
    }
    if networks := access.join(launch.networks):
        config["NetworkMode"] = networks[0]
    if launch.memory_mb is not None:
        config["Memory"] = config["MemorySwap"] = launch.memory_mb * MB
    if launch.cpus is not None:
        config["NanoCpus"] = round(launch.cpus * 1e9)
    if launch.pids is not None:
        config["PidsLimit"] = launch.pids
    if launch.shm_size_mb is not None:
        config["ShmSize"] = launch.shm_size_mb * MB
    return config


def _published(launch: DockerLaunch, access: Access) -> dict[str, Any]:
    """Publish on the port asked for, else on one that Docker chooses and keeps while the container lives."""
    if access.networks and launch.host_port is None:
        return {}
    return {f"{launch.port}/tcp": [{"HostIp": access.address, "HostPort": str(launch.host_port or "")}]}


def device_requests(gpus: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return how GPUs are asked for.

    >>> device_requests(("2",)) == [{"Driver": "", "Count": 2, "Capabilities": [["gpu"]]}]
    True
    >>> device_requests(("device=0", "device=2"))[0]["DeviceIDs"], device_requests(("all",))[0]["Count"]
    (['0', '2'], -1)
    """
    if not gpus:
        return []
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]]}
    match gpus:
        case ("all",):
            request["Count"] = -1
        case (count,) if count.isdigit():
            request["Count"] = int(count)
        case _:
            request["DeviceIDs"] = [gpu.removeprefix("device=") for gpu in gpus]
    return [request]


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    shaped = check.test[:1] in {("CMD",), ("CMD-SHELL",), ("NONE",)}
    return {
        "Test": list(check.test) if shaped else ["CMD", *check.test],
        "Interval": round(check.interval * 1e9),
        "Timeout": round(check.timeout * 1e9),
        "Retries": check.retries,
        "StartPeriod": round(check.start_period * 1e9),
    }


def parse_handle(facts: Json, access: Access) -> Handle | None:
    """Return the handle of an inspected container; None when its labels are not those of a service."""
    labels = facts["Config"].get("Labels") or {}
    if SERVICE not in labels or not labels.get(PORT, "").isdigit():
        return None
    return Handle(
        service_id=labels[SERVICE],
        config_hash=labels.get(CONFIG_HASH, ""),
        ref=facts["Id"],
        started=timestamp(facts["State"]["StartedAt"]),
        upstreams=(_upstream(facts["NetworkSettings"], int(labels[PORT]), access),),
    )


def _upstream(network: Json, port: int, access: Access) -> Upstream:
    """Return where a container is reached; port 0, where nobody answers, when it has ended already."""
    joined: dict[str, Json] = network.get("Networks") or {}
    shared = [joined[name] for name in access.networks if name in joined]
    near = [each for each in joined.values() if each.get("Gateway") in access.gateways]
    for each in (*shared, *near):
        if each.get("IPAddress"):
            return Upstream(each["IPAddress"], port)
    published = (network.get("Ports") or {}).get(f"{port}/tcp") or [{}]
    return Upstream(access.address, int(published[0].get("HostPort") or 0))


def timestamp(text: str) -> float:
    """Return seconds since the epoch; 0 for what never was.

    >>> timestamp("2025-01-01T00:00:00.123456789Z"), timestamp("0001-01-01T00:00:00Z")
    (1735689600.123456, 0.0)
    """
    return max(0.0, datetime.fromisoformat(text).timestamp())


def parse_exit(code: int, state: Json) -> Exit:
    """Return how a container ended, from its exit code and its inspected state, which may be empty.

    >>> parse_exit(3, {}).detail, parse_exit(137, {}).detail
    ('exit code 3', 'killed by SIGKILL (exit code 137)')
    >>> parse_exit(137, {"OOMKilled": True}).detail
    'killed: out of memory (exit code 137)'
    """
    if state.get("OOMKilled"):
        return Exit(code, f"killed: out of memory (exit code {code})")
    if code > 128 and code - 128 in set(signal.Signals):
        return Exit(code, f"killed by {signal.Signals(code - 128).name} (exit code {code})")
    if code == NOT_FOUND:
        return Exit(code, "exit code 127: most often a program that is not in the image")
    return Exit(code, f"exit code {code}")
