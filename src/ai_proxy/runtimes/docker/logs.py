"""Reads a container's output into its log ring: resumes after an interruption, and repeats no line."""

import asyncio
import contextlib
import struct
from datetime import datetime

from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.logring import LogRing
from ai_proxy.runtimes.docker.api import DockerApi, RefusedError
from ai_proxy.runtimes.lines import CHUNK, REST, LineSplitter

TAIL = 500
"""Most lines read of the output before the start of following, and after the end."""

RETRY = 0.5
"""Seconds between two tries to listen while the engine is away."""

MAX_FRAME = 1024 * 1024
"""Largest frame in bytes; Docker's own have at most 16 KiB."""


class Frames:
    """Parses frames (ContainerAttach, "Stream format") from portions of any size."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        r"""Return the frames that are complete now: the stream (1 stdout, 2 stderr) and its bytes.

        >>> frames = Frames()
        >>> frames.feed(b"\1\0\0\0\0\0\0\2h"), frames.feed(b"i\2\0\0\0\0\0\0\1!")
        ([], [(1, b'hi'), (2, b'!')])

        Raises:
            RuntimeFailureError: The bytes are not frames.
        """
        data, found, start = self._rest + data, [], 0
        while len(data) >= start + 8:
            stream, size = struct.unpack_from(">BxxxL", data, start)
            if size > MAX_FRAME:
                raise RuntimeFailureError("Docker's answer is not a log: it has no frames; check the engine")
            if len(data) < start + 8 + size:
                break
            found.append((stream, data[start + 8 : start + 8 + size]))
            start += 8 + size
        self._rest = data[start:]
        return found


def nanoseconds(stamp: str) -> int:
    """Return a time stamp of the engine as nanoseconds since the epoch; 0 when it is malformed.

    >>> nanoseconds("2025-01-01T00:00:00.123456789Z"), nanoseconds("no time")
    (1735689600123456789, 0)
    >>> nanoseconds("2025-01-01T01:00:00.5+01:00")
    1735689600500000000
    """
    head, _, tail = stamp.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    try:
        seconds = datetime.fromisoformat(head + tail[len(digits) :]).timestamp()
    except (ValueError, OverflowError):
        return 0
    return int(seconds) * 10**9 + int(digits.ljust(9, "0")[:9] or 0)


class ContainerLog:
    """Reads a container's output into a ring."""

    def __init__(self, api: DockerApi, ref: str, ring: LogRing) -> None:
        self._path = f"/containers/{ref}/logs"
        self._api = api
        self._ring = ring
        self._last = 0

    async def follow(self) -> None:
        """Read lines until cancelled."""
        while True:
            # A refusal: the container has ended, which its waiter notices.
            with contextlib.suppress(RuntimeUnavailableError, RefusedError):
                await self._take(follow=True, tail="all" if self._last else str(TAIL))
            await asyncio.sleep(RETRY)

    async def finish(self) -> None:
        """Read the last lines of a container that has ended."""
        with contextlib.suppress(RuntimeFailureError):
            await self._take(follow=False, tail=str(TAIL))

    async def _take(self, *, follow: bool, tail: str) -> None:
        """Read from the last line known to the end of the stream."""
        known = self._last
        frames, lines = Frames(), {1: LineSplitter(), 2: LineSplitter()}
        async with self._api.stream(
            "GET",
            self._path,
            None if follow else RETRY * 10,
            follow=int(follow),
            stdout=1,
            stderr=1,
            timestamps=1,
            since=f"{known // 10**9}.{known % 10**9:09d}",
            tail=tail,
        ) as content:
            while data := await content.read(CHUNK):
                for stream, written in frames.feed(data):
                    self._keep(lines.get(stream), written, known)
                if follow and len(data) == CHUNK:
                    await asyncio.sleep(REST)
        for splitter in lines.values():
            self._append(splitter.flush())

    def _keep(self, splitter: LineSplitter | None, written: bytes, known: int) -> None:
        stamp, _, text = written.partition(b" ")
        at = nanoseconds(stamp.decode(errors="replace"))
        if splitter is not None and at > known:
            self._last = max(self._last, at)
            self._append(splitter.feed(text))

    def _append(self, lines: list[str]) -> None:
        for line in lines:
            self._ring.append(line, self._last / 1e9)
