"""The last lines of a service's output, in bounded memory."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)

MAX_LINE = 4096
"""Longest line kept, in characters; a longer line is cut."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of output.

    Attributes:
        seq: Number of the line in its ring, from 1.
        at: Seconds since the epoch.
        text: The line without its line end.
    """

    seq: int
    at: float
    text: str


class LogRing:
    """Keeps the last lines and calls watchers with new ones."""

    def __init__(self, capacity: int = 2000) -> None:
        self._lines: deque[LogLine] = deque(maxlen=capacity)
        self._watchers: list[Callable[[LogLine], None]] = []
        self._seq = 0

    def __repr__(self) -> str:
        return f"<LogRing [{len(self._lines)} of {self._seq} lines]>"

    def append(self, text: str, at: float) -> None:
        """Add a line."""
        self._seq += 1
        line = LogLine(self._seq, at, text[:MAX_LINE])
        self._lines.append(line)
        for watcher in tuple(self._watchers):
            try:
                watcher(line)
            except Exception:  # noqa: BLE001 - the reader of the output and the other watchers must go on
                _log.exception("a watcher of a service's output failed")

    def tail(self, count: int) -> list[LogLine]:
        """Return the last `count` lines, oldest first.

        >>> ring = LogRing(capacity=2)
        >>> for word in "abc": ring.append(word, at=0.0)
        >>> [line.text for line in ring.tail(5)]
        ['b', 'c']
        """
        return list(self._lines)[-count:] if count > 0 else []

    def watch(self, watcher: Callable[[LogLine], None]) -> Callable[[], None]:
        """Call `watcher` for every new line until the returned function is called."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)
