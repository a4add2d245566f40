"""What a client connection waits for, and how long it may."""

from enum import IntEnum, auto
from typing import TYPE_CHECKING

from ai_proxy.gateway.exchange import FORWARDING, RESPONDING

if TYPE_CHECKING:
    from ai_proxy.gateway.connection import ClientConnection

LINGER = 5.0
"""Seconds that a rejected client's bytes are thrown away, so that it can read the answer (RFC 9112 9.6)."""


class Wait(IntEnum):
    """What a connection waits for; each has a time limit."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    BACKEND = auto()
    STREAM = auto()
    READER = auto()
    LINGER = auto()
    UNLIMITED = auto()


def waiting_for(connection: "ClientConnection") -> tuple[Wait, int, float]:
    """Return what is waited for, a number that changes with every progress, and the limit in seconds.

    A limit of 0 means none.
    """
    limits = connection.gateway.limits
    transport = connection.transport
    if connection.lingering:
        return Wait.LINGER, transport.get_write_buffer_size(), LINGER
    if connection.write_paused or transport.is_closing():
        return Wait.READER, transport.get_write_buffer_size(), limits.write_timeout
    current = connection.current
    if current is None:
        if connection.in_head:
            return Wait.HEAD, 0, limits.head_timeout
        return Wait.IDLE, 0, limits.keep_alive_timeout
    if connection.reading is current and not connection.reading_paused:
        return Wait.BODY, current.received, limits.body_timeout
    destination = current.destination
    if destination is None or current.status == 101:
        return Wait.UNLIMITED, 0, 0.0
    if current.phase is FORWARDING:
        return Wait.BACKEND, current.received, destination.response_timeout
    if current.phase is RESPONDING:
        return Wait.STREAM, current.progress, destination.stream_idle_timeout
    return Wait.UNLIMITED, 0, 0.0


class Watch:
    """Notices when a connection waits for the same thing for too long."""

    __slots__ = ("_seen", "_since")

    def __init__(self, now: float) -> None:
        self._seen: tuple[Wait, int, int] | None = None
        self._since = now

    def overdue(self, connection: "ClientConnection", now: float) -> tuple[Wait, float] | None:
        """Return what is overdue, and its limit in seconds."""
        wait, progress, limit = waiting_for(connection)
        seen = (wait, progress, connection.served)
        if seen != self._seen:
            self._seen, self._since = seen, now
            return None
        return (wait, limit) if limit and now - self._since >= limit else None
