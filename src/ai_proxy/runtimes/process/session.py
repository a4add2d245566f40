"""The processes of one service: those of its session and those that left it, and how to end all of them."""

import asyncio
import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable

import psutil

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.platform.process import began

POLL = 0.1
"""Seconds between checks, where the system does not report the end of a process."""


class Session:
    """All processes that a leader started: those in its session, and those that left it but carry its marks.

    As in a container, the end of the leader is the end of all.

    Args:
        pid: The leader's, which is the number of the session.
        started: The leader's start, as `platform.process.began` tells it.
        leader: The leader; None when it has ended.
        marked: Returns the pids of the processes that carry the marks of this session's service.
    """

    def __init__(
        self, pid: int, started: float, leader: psutil.Process | None, marked: Callable[[], Iterable[int]]
    ) -> None:
        self._pid = pid
        self._started = started
        self._leader = leader
        self._marked = marked

    def __repr__(self) -> str:
        return f"<Session {self._pid} [{len(self.members())} processes]>"

    @classmethod
    def find(cls, pid: int, started: float, marked: Callable[[], Iterable[int]]) -> "Session | None":
        """Return the session of a leader with that pid and start; None when nothing of it runs."""
        leader = None
        if began(pid) == started:
            with contextlib.suppress(psutil.NoSuchProcess):
                leader = psutil.Process(pid)
        session = cls(pid, started, leader, marked)
        left = session.members() if leader is not None else list(marked())
        is_wrong = leader is None and pid in left  # the leader lives, and began at another moment
        return session if left and not is_wrong else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the leader's process group, while there is a leader."""
        if self._leader is not None and self._leader.is_running():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)

    def members(self) -> list[int]:
        """Return the pids of live processes, the leader first.

        The number of a session is not given out again while any process belongs to it. Once another process
        has it as its pid, the session is another's.
        """
        inside = members(self._pid) if began(self._pid) in (None, self._started) else []
        return [*inside, *(pid for pid in self._marked() if pid not in inside and not has_ended(pid))]

    def kill(self) -> None:
        """End every process by force.

        Raises:
            RuntimeFailureError: We may not.
        """
        for pid in self.members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError:
                raise RuntimeFailureError(
                    f"process {pid} runs as another user, so it cannot be ended: end it as that user"
                ) from None

    async def leader_ended(self) -> None:
        """Return once the leader has ended."""
        if self._leader is not None and self._leader.is_running():
            await ended(self._pid)

    async def end(self) -> None:
        """End every process by force; return when none lives.

        Raises:
            RuntimeFailureError: We may not.
        """
        while pids := self.members():
            self.kill()
            async with asyncio.TaskGroup() as group:
                for pid in pids:
                    group.create_task(_ended_within(pid, 1.0))

    def reap(self) -> int | None:
        """Take the leader's exit code, as in `subprocess`; None when it is not our child."""
        try:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            return None
        return os.waitstatus_to_exitcode(status) if pid else None


def members(session_id: int) -> list[int]:
    """Return the pids of live processes in a session."""
    return [pid for pid in psutil.pids() if _session_of(pid) == session_id and not has_ended(pid)]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def is_leader(pid: int) -> bool:
    """Return whether a process leads a session of its own."""
    return _session_of(pid) == pid


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    if sys.platform != "linux":
        return _is_zombie(pid)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return _is_zombie(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(descriptor)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def ended(pid: int) -> None:
    """Return once a process has ended, reaped or not."""
    if sys.platform != "linux":
        await _poll_until_ended(pid)
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:
        await _poll_until_ended(pid)
        return
    try:
        await _readable(descriptor)
    finally:
        os.close(descriptor)


async def _ended_within(pid: int, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ended(pid)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)


async def _poll_until_ended(pid: int) -> None:
    while not has_ended(pid):  # noqa: ASYNC110
        await asyncio.sleep(POLL)
