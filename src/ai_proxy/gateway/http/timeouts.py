"""What a client connection waits for, and how long it may."""

from enum import IntEnum, auto

LINGER = 5.0
"""Seconds of discarding what a rejected client sends, so that it can read the response (RFC 9112 9.6)."""


class Wait(IntEnum):
    """What a connection waits for; each has a time limit of its own."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    BACKEND = auto()
    STREAM = auto()
    READER = auto()
    LINGER = auto()
    UNLIMITED = auto()


type Pending = tuple[Wait, int, float]
"""What is waited for, a number that changes with every progress, and the limit in seconds; 0 for none."""

UNLIMITED: Pending = (Wait.UNLIMITED, 0, 0.0)


class Watch:
    """Notices when a connection waits for the same thing for too long."""

    __slots__ = ("_seen", "_since")

    def __init__(self, now: float) -> None:
        self._seen: tuple[Wait, int, int] | None = None
        self._since = now

    def overdue(self, pending: Pending, served: int, now: float) -> bool:
        """Return whether the wait has lasted for its limit without any progress.

        Args:
            pending: What the connection waits for.
            served: Requests served so far; a new request starts the wait again.
            now: Monotonic seconds.
        """
        wait, progress, limit = pending
        seen = (wait, progress, served)
        if seen != self._seen:
            self._seen, self._since = seen, now
            return False
        return limit > 0 and now - self._since >= limit
