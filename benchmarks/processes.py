"""Starting what is measured, each on its own core, and ending it again."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core does what.

    Attributes:
        proxy: The core of the proxy under test.
        engine: The core of the fake engine.
        load: The core of the clients.
    """

    proxy: int
    engine: int
    load: int

    @property
    def apart(self) -> bool:
        """Whether the proxy has a core to itself."""
        return self.proxy not in (self.engine, self.load)


def assign(available: Sequence[int]) -> Cores:
    """Share out the cores: the proxy's own first, then the engine's, then the clients'.

    >>> assign([0, 1])
    Cores(proxy=0, engine=1, load=1)
    >>> assign([4, 5, 6, 7])
    Cores(proxy=4, engine=5, load=6)
    >>> assign([3]).apart
    False
    """
    return Cores(available[0], available[:2][-1], available[:3][-1])


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], core: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process on one core, in a session of its own; end it and its group when left.

    Args:
        command: Program and arguments.
        core: The only core it and its children may use.
        log: File that its output is appended to.
        env: Its whole environment; None for this process's.
    """
    with log.open("ab") as output, _pinned(core):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


@contextlib.contextmanager
def _pinned(core: int) -> Iterator[None]:
    """Stay on one core, so that a child started meanwhile stays there for good."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
