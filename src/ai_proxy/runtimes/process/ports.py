"""TCP ports on this machine for the processes we start."""

import secrets
import socket
from collections.abc import Container

import psutil

from ai_proxy.core.errors import RuntimeFailureError

CANDIDATES = range(20000, 30000)
"""Below the ranges from which systems pick the ports of outgoing connections, which could take one away."""


def find_free_port(host: str, taken: Container[int], candidates: range = CANDIDATES) -> int:
    """Return a port nobody listens on.

    Args:
        host: Address it is wanted on.
        taken: Ports that were given out, though their owners may not listen yet.
        candidates: Ports to choose from.

    Raises:
        RuntimeFailureError: None was found.
    """
    for _ in range(200):
        port = secrets.choice(candidates)
        if port not in taken and _is_free(host, port):
            return port
    raise RuntimeFailureError(
        f"no free port between {candidates.start} and {candidates.stop - 1} on {host}: "
        "set 'port' for the service"
    )


def require_free_port(host: str, port: int) -> int:
    """Return the port if nobody listens on it.

    Raises:
        RuntimeFailureError: Somebody does; says who, where that can be told.
    """
    if not _is_free(host, port):
        raise RuntimeFailureError(
            f"port {port} on {host} is taken{_holder(port)}: end what listens there, or choose another port"
        )
    return port


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    """Name the listener on a port, if we may know: ' by llama-server (pid 7)'."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""
