"""Tells the service manager that started this program how it stands, as systemd wants to hear it."""

import os
import socket
from collections.abc import Mapping

from loguru import logger

READY, STOPPING = "READY=1", "STOPPING=1"
"""What there is to tell: sd_notify(3)."""


def notify(state: str, env: Mapping[str, str] = os.environ) -> None:
    """Tell the service manager, where there is one that listens; that it cannot be told harms nothing.

    Args:
        state: An assignment, as in sd_notify(3).
        env: May name the manager's socket: `NOTIFY_SOCKET`.
    """
    address = env.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode(), _socket_name(address))
    except OSError as error:
        logger.warning("the service manager could not be told {}: {}", state, error)


def _socket_name(address: str) -> str:
    r"""Return an address as the system wants it: one that is no path begins with a zero byte (unix(7)).

    >>> _socket_name("@org/systemd"), _socket_name("/run/systemd/notify")
    ('\x00org/systemd', '/run/systemd/notify')
    """
    return "\0" + address[1:] if address.startswith("@") else address
