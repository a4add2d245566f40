"""Reads a process's output into its log ring.

The output passes through a FIFO in the file system, not a pipe: the process holds both ends open, so it
neither breaks nor loses output when the proxy dies, and the next proxy reads on from the same FIFO.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ai_proxy.core.logring import LogRing
from ai_proxy.runtimes.lines import CHUNK, REST, LineSplitter

PIPE_SIZE = 1024 * 1024
"""Capacity of the FIFO in bytes, where the system allows a choice (Linux, up to pipe-max-size)."""


def create_fifo(path: Path) -> int:
    """Make a fresh FIFO and return a descriptor to write to; writing blocks when the FIFO is full.

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


def find_fifo(path: Path, pids: Iterable[int]) -> Path | None:
    """Return a path that opens the FIFO that processes write to; None when there is none.

    Its file may have been deleted or replaced, but the processes hold the FIFO open.

    Args:
        path: Where it was created.
        pids: The processes.
    """
    made_at = os.path.realpath(path)
    for pid in pids:
        for stream in (1, 2):
            held = Path(f"/proc/{pid}/fd/{stream}")
            with contextlib.suppress(OSError):
                if str(held.readlink()) in (made_at, f"{made_at} (deleted)"):
                    return held
    return path if path.is_fifo() else None


def has_reader(path: Path) -> bool:
    """Return whether a process holds a FIFO open for reading; every process that we start does."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


class Output:
    """Reads a FIFO into a log ring."""

    def __init__(self, path: Path | None, ring: LogRing, wall: Callable[[], float]) -> None:
        self._ring = ring
        self._wall = wall
        self._lines = LineSplitter()
        self._resting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._reader: int | None = None
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                self._loop.add_reader(self._reader, self._take)

    def close(self) -> None:
        """Stop reading; unread output stays in the FIFO."""
        if self._reader is not None:
            self._pause()
            os.close(self._reader)
            self._reader = None

    async def finish(self) -> None:
        """Read the rest, at most the capacity of a FIFO, and close."""
        if self._reader is not None:
            self._pause()
            for _ in range(2 * PIPE_SIZE // CHUNK):
                if not self._read():
                    break
                await asyncio.sleep(0)
        self._keep(self._lines.flush())
        self.close()

    def _take(self) -> None:
        """Read once; pause when there is more, and stop when all writers are gone."""
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
        """Read one chunk; return its size: 0 when all writers are gone, None when it is empty."""
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
