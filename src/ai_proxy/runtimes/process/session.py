"""The processes of one session of the operating system, and how to end all of them."""

import asyncio
import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable

import psutil

from ai_proxy.core.errors import RuntimeFailureError

TOLERANCE = 2.0
"""Seconds by which a start time may differ from the stored one, since the system adjusts its clock."""

POLL = 0.1
"""Seconds between checks, where the system does not report the end of a process."""


class Session:
    """All processes that a leader started and that did not leave its session.

    As in a container, the end of the leader is the end of all. The number of a session is not given out
    again while any process belongs to it, whether or not the leader lives.
    """

    def __init__(self, pid: int, leader: psutil.Process | None) -> None:
        self._pid = pid
        self._leader = leader

    def __repr__(self) -> str:
        return f"<Session {self._pid} [{len(self.members())} processes]>"

    @classmethod
    def find(cls, pid: int, started: float, is_ours: Callable[[int], bool]) -> "Session | None":
        """Return the session of a leader with that pid and start time; None when nothing of it runs.

        Args:
            pid: The leader's.
            started: The leader's start, in seconds since the epoch.
            is_ours: Returns whether we started the process of a pid; asked when the leader is gone.
        """
        try:
            leader = psutil.Process(pid)
            if abs(leader.create_time() - started) > TOLERANCE:
                return None
            return cls(pid, leader) if members(pid) else None
        except psutil.NoSuchProcess:
            left = members(pid)
            return cls(pid, None) if any(map(is_ours, left)) else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the leader's process group, while there is a leader."""
        if self._leader is not None and self._leader.is_running():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)

    def members(self) -> list[int]:
        """Return the pids of live processes."""
        return members(self._pid)

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
