"""Standard error as the log's destination: whoever does not read it must not hold up the proxy."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Full, Queue
from typing import TextIO

MOST_LINES = 2_000
"""Lines that wait to be read; those beyond are dropped."""
AT_THE_END = 1.0
"""Seconds for the lines that are left when the program ends."""


class Console:
    """Writes lines in a thread of its own, and drops some while nobody reads them.

    A pipe whose reader is stuck, or a terminal after Ctrl-S, blocks whoever writes to it. It is written to
    past Python's own buffer, whose lock would block the end of the program.

    Args:
        descriptor: Of the pipe, terminal or file.
        terminal: Whether it is a terminal.
    """

    def __init__(self, descriptor: int, *, terminal: bool) -> None:
        self._descriptor = descriptor
        self._terminal = terminal
        self._lines = Queue[str | None](MOST_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Console [{self._lines.qsize()} lines waiting, {self._dropped} dropped]>"

    def isatty(self) -> bool:
        """Tell whether it is a terminal, which shows colours."""
        return self._terminal

    def write(self, line: str) -> None:
        """Have a line written, or drop it; never waits."""
        try:
            self._lines.put_nowait(line)
        except Full:
            self._dropped += 1

    def close(self) -> None:
        """Wait a moment for what is left, then give up."""
        while not self._lines_end():
            with suppress(Empty):  # nobody reads: the oldest line makes room for the end
                self._lines.get_nowait()
        self._thread.join(AT_THE_END)

    def _lines_end(self) -> bool:
        try:
            self._lines.put_nowait(None)
        except Full:
            return False
        return True

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                line = f"({dropped} log lines were dropped here: nobody read standard error)\n{line}"
            with suppress(OSError):  # nobody will ever read it
                self._write(line.encode(errors="replace"))

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]


@contextmanager
def console(stream: TextIO) -> Iterator[TextIO | Console]:
    """Yield what writes to a stream and never waits; the stream itself where it has no descriptor."""
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
