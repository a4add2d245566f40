"""A process's output on its way to the log ring.

It passes through a FIFO in the file system, not a pipe: the process holds both ends of it open, so it neither
breaks nor loses its output when the proxy dies, and the next proxy opens the same FIFO and reads on.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from ai_proxy.core.logring import LogRing
from ai_proxy.runtimes.lines import CHUNK, REST, LineSplitter

PIPE_SIZE = 1024 * 1024
"""What the FIFO holds while nobody reads, where the system lets us choose (Linux, up to pipe-max-size)."""


def create_fifo(path: Path) -> int:
    """Make a fresh FIFO and return a descriptor for the process to write to, which blocks when it is full.

    Raises:
        OSError: The file system refuses.
    """
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    writer = os.open(path, os.O_RDWR)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return writer


class Output:
    """Reads a FIFO into a log ring as the event loop finds time."""

    def __init__(self, path: Path, ring: LogRing, wall: Callable[[], float]) -> None:
        self._ring = ring
        self._wall = wall
        self._lines = LineSplitter()
        self._resting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._reader: int | None = None
        with contextlib.suppress(FileNotFoundError):
            self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            self._loop.add_reader(self._reader, self._take)

    def close(self) -> None:
        """Stop reading; what is still in the FIFO stays there."""
        if self._reader is not None:
            self._pause()
            os.close(self._reader)
            self._reader = None

    async def finish(self) -> None:
        """Read what is left, at most what a FIFO holds, and close."""
        if self._reader is not None:
            self._pause()
            for _ in range(2 * PIPE_SIZE // CHUNK):
                if not self._read():
                    break
                await asyncio.sleep(0)
        self._keep(self._lines.flush())
        self.close()

    def _take(self) -> None:
        """Read once; rest when there is more, for good when all writers are gone."""
        count = self._read()
        if count == 0:
            self._pause()
        elif count == CHUNK:
            self._pause()
            self._resting = self._loop.call_later(REST, self._resume)

    def _pause(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._reader is not None:
            self._loop.remove_reader(self._reader)

    def _resume(self) -> None:
        self._resting = None
        if self._reader is not None:
            self._loop.add_reader(self._reader, self._take)

    def _read(self) -> int | None:
        """Read one chunk; return its size: 0 when all writers are gone, None when there is nothing now."""
        if self._reader is None:
            return 0
        try:
            data = os.read(self._reader, CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return 0
        self._keep(self._lines.feed(data))
        return len(data)

    def _keep(self, lines: list[str]) -> None:
        now = self._wall()
        for line in lines:
            self._ring.append(line, now)
