"""Converts a service to the API request that creates its container, and answers back to a handle and an exit.

Pure functions. https://docs.docker.com/reference/api/engine/ (ContainerCreate, ContainerInspect)
"""

import signal
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ai_proxy.core.service import HANDLE_VERSION as CURRENT
from ai_proxy.core.service import DockerLaunch, Exit, Handle, Healthcheck, Service, Upstream
from ai_proxy.core.settings import MB
from ai_proxy.runtimes.docker.access import Access
from ai_proxy.runtimes.docker.answers import Container, NetworkSettings

OWNER = "ai-proxy.owner"
SERVICE = "ai-proxy.service"
CONFIG_HASH = "ai-proxy.config-hash"
VERSION = "ai-proxy.version"
PORT = "ai-proxy.port"
HANDLE_VERSION = "ai-proxy.handle-version"

NOT_FOUND = 127
"""Exit code of Docker's init, and of shells, for a missing program."""

LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
"""A driver that the API can read, with a bound on disk space."""


def container_name(service_id: str) -> str:
    """Return the name of a service's container."""
    return f"ai-proxy-{service_id}"


def make_labels(service: Service, launch: DockerLaunch, owner: str, version: str) -> dict[str, str]:
    """Return the labels that identify a container as ours."""
    return {
        OWNER: owner,
        SERVICE: service.id,
        CONFIG_HASH: service.config_hash,
        VERSION: version,
        PORT: str(launch.port),
        HANDLE_VERSION: str(CURRENT),
    }


def make_body(launch: DockerLaunch, labels: Mapping[str, str], access: Access) -> dict[str, Any]:
    """Return the request body that creates a container in its first network."""
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
    """Publish the port: the declared host port, or one that Docker chooses."""
    if access.networks and launch.host_port is None:
        return {}
    return {f"{launch.port}/tcp": [{"HostIp": access.address, "HostPort": str(launch.host_port or "")}]}


def device_requests(gpus: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the request for GPUs.

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


def parse_handle(container: Container, access: Access) -> Handle | None:
    """Return the handle of an inspected container; None when its labels are not those of a service."""
    labels, port = container.labels, _port(container.labels.get(PORT, ""))
    version = labels.get(HANDLE_VERSION, "1")
    if SERVICE not in labels or not port:
        return None
    return Handle(
        service_id=labels[SERVICE],
        config_hash=labels.get(CONFIG_HASH, ""),
        ref=container.id,
        started=timestamp(container.state.started_at),
        upstreams=(_upstream(container.network_settings, port, access),),
        version=int(version) if version.isdecimal() else 0,
    )


def _upstream(network: NetworkSettings, port: int, access: Access) -> Upstream:
    """Return the address of a container; port 0 when it has ended already."""
    joined = network.networks or {}
    shared = [joined[name] for name in access.networks if name in joined]
    near = [endpoint for endpoint in joined.values() if endpoint.gateway in access.gateways]
    for endpoint in (*shared, *near):
        if endpoint.ip_address:
            return Upstream(endpoint.ip_address, port)
    published = (network.ports or {}).get(f"{port}/tcp")
    return Upstream(access.address, _port(published[0].host_port) if published else 0)


def _port(text: str) -> int:
    """Parse a port of a label or an answer; 0 when it is malformed.

    >>> _port("8080"), _port(""), _port("70000")
    (8080, 0, 0)
    """
    port = int(text) if text.isdecimal() and len(text) <= 5 else 0
    return port if port <= 65535 else 0


def timestamp(moment: datetime) -> float:
    """Return seconds since the epoch; 0 for the year 1, which means never.

    >>> [timestamp(datetime.fromisoformat(f"{day}T00:00:00.5Z")) for day in ("2025-01-01", "0001-01-01")]
    [1735689600.5, 0.0]
    """
    return max(0.0, moment.timestamp())


def parse_exit(code: int, *, out_of_memory: bool = False) -> Exit:
    """Return how a container ended.

    Args:
        code: Its exit code.
        out_of_memory: Whether the kernel killed it for its use of memory.

    >>> parse_exit(3).detail, parse_exit(137).detail
    ('exit code 3', 'killed by SIGKILL (exit code 137)')
    >>> parse_exit(137, out_of_memory=True).detail
    'killed: out of memory (exit code 137)'
    """
    if out_of_memory:
        return Exit(code, f"killed: out of memory (exit code {code})")
    if code > 128 and code - 128 in set(signal.Signals):
        return Exit(code, f"killed by {signal.Signals(code - 128).name} (exit code {code})")
    if code == NOT_FOUND:
        return Exit(code, "exit code 127: most often a program that is not in the image")
    return Exit(code, f"exit code {code}")
