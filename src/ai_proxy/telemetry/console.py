"""Writes the log to standard error without ever waiting for whoever reads it."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Full, Queue
from typing import TextIO

MAX_LINES = 2_000
"""Most lines that wait to be written; further ones are dropped."""
CLOSE_TIMEOUT = 1.0
"""Seconds for writing the lines that are left when the program ends."""


class Console:
    """Writes lines in a thread of its own, and drops some while nobody reads them.

    A pipe whose reader is stuck, or a terminal after Ctrl-S, blocks its writer. The thread writes to the
    descriptor: the lock of Python's own buffer would block the end of the program.

    Args:
        descriptor: Of the pipe, terminal or file.
        terminal: Whether it is a terminal.
    """

    def __init__(self, descriptor: int, *, terminal: bool) -> None:
        self._descriptor = descriptor
        self._terminal = terminal
        self._lines = Queue[str | None](MAX_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Console [{self._lines.qsize()} lines waiting, {self._dropped} dropped]>"

    def isatty(self) -> bool:
        """Return whether the destination is a terminal, which shows colours."""
        return self._terminal

    def write(self, line: str) -> None:
        """Queue a line, or drop it if too many wait; never blocks."""
        try:
            self._lines.put_nowait(line)
        except Full:
            self._dropped += 1

    def close(self) -> None:
        """Write the lines that are left, for `CLOSE_TIMEOUT` at most."""
        while True:
            try:
                self._lines.put_nowait(None)
                break
            except Full:  # the oldest line makes room for the end
                with suppress(Empty):
                    self._lines.get_nowait()
        self._thread.join(CLOSE_TIMEOUT)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                line = f"({dropped} log lines were dropped here, because nobody read standard error)\n{line}"
            with suppress(OSError):  # nobody will ever read it
                self._write(line.encode(errors="replace"))

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]


@contextmanager
def console(stream: TextIO) -> Iterator[TextIO | Console]:
    """Yield a `Console` on a stream, or the stream itself if it has no descriptor."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        yield stream
        return
    opened = Console(descriptor, terminal=stream.isatty())
    try:
        yield opened
    finally:
        opened.close()
