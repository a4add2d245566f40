"""Finds TCP ports for processes on this machine."""

import secrets
import socket
from collections.abc import Container

import psutil

from ai_proxy.core.errors import RuntimeFailureError

CANDIDATES = range(20000, 30000)
"""Below the ranges that systems use for outgoing connections, which could take a port away."""


def find_free_port(host: str, taken: Container[int], candidates: range = CANDIDATES) -> int:
    """Return a free port.

    Args:
        host: Address to listen on.
        taken: Ports given to processes that may not listen yet.
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
    """Return the port if it is free.

    Raises:
        RuntimeFailureError: It is taken; names the listener if possible.
    """
    if not _is_free(host, port):
        raise RuntimeFailureError(
            f"port {port} on {host} is taken{_by(port)}: end what listens there, or choose another port"
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


def _by(port: int) -> str:
    return f" by{found}" if (found := holder(port)) else ""


def holder(port: int) -> str:
    """Return who listens on a port, if that can be read: ' llama-server (pid 7)'."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == port and connection.pid:
                return f" {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""
