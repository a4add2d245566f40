"""Runs services as child processes, which survive the proxy.

Each process leads a session of its own. Marks in its environment identify it even without a file: when the
proxy was killed before it could write one, or the disk was full. They also identify what it started and what
left its session.
"""

import asyncio
import math
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import psutil
from loguru import logger

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.logring import LogRing
from ai_proxy.core.placement import Placement
from ai_proxy.core.ports import RuntimeCapabilities, Tell
from ai_proxy.core.service import HANDLE_VERSION, Exit, Handle, ProcessLaunch, Report, Service
from ai_proxy.platform import tasks
from ai_proxy.platform.process import began
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.base import Reports
from ai_proxy.runtimes.process.command import Command, build_command, explain_failure
from ai_proxy.runtimes.process.listener import Listeners, belongs, find_holdings
from ai_proxy.runtimes.process.logs import Output, create_fifo, find_fifo, has_reader
from ai_proxy.runtimes.process.ports import find_free_port, holder, require_free_port
from ai_proxy.runtimes.process.records import HOST, Records, make_handle
from ai_proxy.runtimes.process.session import Session, has_ended, is_leader

OWNER = "AI_PROXY_OWNER"
SERVICE = "AI_PROXY_SERVICE"
CONFIG_HASH = "AI_PROXY_CONFIG_HASH"
PORT = "AI_PROXY_PORT"
VERSION = "AI_PROXY_HANDLE_VERSION"
START = "AI_PROXY_START"

FORCE_TIMEOUT = 10.0
"""Longest wait, in seconds, for the end of a process that was killed."""
MARKS_TIMEOUT = 1.0
"""Longest wait, in seconds, for the marks of a process that has not executed its program yet."""
MARKS_CHECKS = 20
"""How many times the marks are looked for within that time."""
RECHECK_INTERVAL = 1.0
"""Seconds until another program on a backend's port is looked at again, which takes milliseconds."""
KILLED = (-9, 137, None)
"""Exit codes of what was killed: 137 by way of a shell; None for what was adopted."""
UNFIT = 0
"""Version of the handle of a process that cannot be adopted, only ended."""


def count_oom_kills() -> int:
    """Return how many processes the kernel has killed since its boot for lack of memory; 0 where unknown."""
    try:
        counters = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(found[1]) if found else 0


@dataclass(slots=True, eq=False)
class Tracked:
    """A process that runs or ran, and the task that waits for its exit.

    Attributes:
        session: The process and its descendants.
        output: Reads what they write.
        reports: Of its exit.
        listeners: By inode of a socket that listens on its port: why it is not the process's own (empty if it
            is), and until when, in monotonic seconds, that holds.
        code: Exit code of the leader; None before it was reaped.
        killed: Whether we have killed it.
        oom_kills: How many processes the kernel had killed for lack of memory when this one still ran.
        end: The task.
    """

    session: Session
    output: Output
    reports: Reports = field(default_factory=Reports)
    listeners: dict[int, tuple[str, float]] = field(default_factory=dict)
    code: int | None = None
    killed: bool = False
    oom_kills: int = 0
    end: asyncio.Task[None] = field(init=False)


class ProcessRuntime:
    """Runs services as processes; implements `core.ports.Runtime`.

    Args:
        state_dir: A private folder; created when needed.
        owner: Mark that distinguishes this proxy's processes from those of others.
        background: Owns the tasks that wait for exits.
        wall: Returns seconds since the epoch.
        oom_kills: Returns how many processes the kernel has killed for lack of memory.
    """

    capabilities = RuntimeCapabilities()

    def __init__(
        self,
        state_dir: Path,
        owner: str,
        background: Background,
        wall: Callable[[], float] = time.time,
        oom_kills: Callable[[], int] = count_oom_kills,
    ) -> None:
        self._records = Records(state_dir)
        self._owner = owner
        self._background = background
        self._wall = wall
        self._oom_kills = oom_kills
        self._rings: dict[str, LogRing] = {}
        self._tracked: dict[Handle, Tracked] = {}
        self._has_looked = False
        self._listeners = Listeners()

    def __repr__(self) -> str:
        return f"<ProcessRuntime {self._owner} [{len(self._running())} running]>"

    async def start(self, service: Service, placement: Placement, tell: Tell) -> Handle:  # noqa: ARG002
        """Launch the service; without an await, so that a cancellation cannot leave it half-done."""
        launch = service.launch
        if not isinstance(launch, ProcessLaunch):
            raise RuntimeFailureError(f"{service.id} has no command: it cannot be run as a process")
        port = self._choose_port(launch)
        marks = self._marks(service, port)
        if placement.devices is not None:
            marks["CUDA_VISIBLE_DEVICES"] = ",".join(placement.devices)
        command = build_command(launch, port, os.environ, marks)
        process, output = self._launch(service.id, command)
        started = began(process.pid) or 0.0
        handle = make_handle(service.id, service.config_hash, process.pid, started, port, mark=marks[START])
        self._save(handle)
        self._forget_ended(service.id)
        session = Session(process.pid, started, process, partial(self._marked_as, handle))
        self._track(handle, session, output)
        return handle

    async def stop(self, handle: Handle, grace: float) -> None:
        """Send SIGTERM to the process group, and SIGKILL to the session after `grace` seconds."""
        tracked = self._find(handle)
        if tracked is None:
            return
        tracked.session.signal(signal.SIGTERM)
        tracked.session.signal(signal.SIGCONT)
        await asyncio.wait({tracked.end}, timeout=grace)
        if not tracked.end.done():
            tracked.killed = True
            tracked.session.kill()
            await asyncio.wait({tracked.end}, timeout=FORCE_TIMEOUT)
        if not tracked.end.done():
            raise RuntimeFailureError(
                f"{handle.service_id} (pid {handle.ref}) does not end even by SIGKILL: "
                "it hangs in the kernel, most often in a driver or a network file system"
            )

    def watch(self, handle: Handle) -> AsyncGenerator[Report]:
        """Report the exit when no process of the session is left."""
        tracked = self._find(handle)
        reports = tracked.reports if tracked is not None else Reports(Exit(None, "had ended before"))
        return reports.follow()

    async def handles(self) -> Sequence[Handle]:
        """Return what runs: known, on file, or identified by its marks."""
        if not self._has_looked:
            await self._until_identified()
            self._has_looked = True
        known = self._running()
        return [*known, *(self._checked(handle) for handle in self._find_others(known))]

    async def _until_identified(self) -> None:
        """Wait until what an earlier proxy started just before its end has marks: a fork has none yet."""
        for _ in range(MARKS_CHECKS):
            found = {handle.service_id for handle in self._find_others(self._running())}
            if self._records.with_output(has_reader) <= found:
                return
            await asyncio.sleep(MARKS_TIMEOUT / MARKS_CHECKS)

    def _find_others(self, known: Sequence[Handle]) -> list[Handle]:
        """Return running processes that are ours by their marks, but not known.

        Of several processes with the marks of one start, the oldest is the leader. The others are its
        descendants in sessions of their own.
        """
        found = {handle.ref: handle for handle in known}
        for handle in self._records.load():
            if handle.ref not in found and self._session(handle):
                found[handle.ref] = handle
            elif found.get(handle.ref) != handle:
                self._records.remove(handle)
        starts = set(map(start_of, found.values()))
        for handle in sorted(self._marked(), key=lambda handle: handle.started):
            if start_of(handle) not in starts:
                starts.add(start_of(handle))
                found[handle.ref] = handle
        return [handle for handle in found.values() if handle not in known]

    def _checked(self, handle: Handle) -> Handle:
        """Return a handle, or one that cannot be adopted if its output cannot be read: it would block."""
        session = self._session(handle)
        pids = session.members() if session is not None else []
        if is_leader(int(handle.ref)) and find_fifo(self._records.fifo(handle.service_id), pids) is None:
            logger.warning(
                "cannot adopt {} (pid {}), so it is ended: its output cannot be read",
                handle.service_id,
                handle.ref,
            )
            return replace(handle, version=UNFIT)
        return handle

    def logs(self, service_id: str) -> LogRing:
        """Return the ring that holds the last lines of the service's output."""
        return self._rings.setdefault(service_id, LogRing())

    def listener_fault(self, handle: Handle) -> str:
        """Return why what listens on the process's port is neither it nor a descendant of it."""
        tracked = self._tracked.get(handle)
        if tracked is None or not self._listeners.kernel_tells:
            return ""
        port = handle.upstreams[0].port
        try:
            listener = self._listeners.find(port)
        except OSError as error:
            return f"cannot determine which program listens on its port {port}: {error.strerror}"
        if listener is None:
            return "connection refused"
        fault, until = tracked.listeners.get(listener.inode, ("", 0.0))
        if time.monotonic() < until:
            return fault
        if belongs(listener, find_holdings(tracked.session.members()), os.getuid()):
            fault, until = "", math.inf
        else:
            fault = f"another program{holder(port)} listens on its port {port}"
            until = time.monotonic() + RECHECK_INTERVAL
        tracked.listeners = {listener.inode: (fault, until)}
        return fault

    async def aclose(self) -> None:
        """Stop following; the processes go on running."""
        await tasks.cancel(*(tracked.end for tracked in self._tracked.values()))
        for tracked in self._tracked.values():
            tracked.output.close()
        self._tracked.clear()
        self._listeners.close()

    def _choose_port(self, launch: ProcessLaunch) -> int:
        if launch.port is not None:
            return require_free_port(HOST, launch.port)
        return find_free_port(HOST, {handle.upstreams[0].port for handle in self._running()})

    def _marks(self, service: Service, port: int) -> dict[str, str]:
        return {
            OWNER: self._owner,
            SERVICE: service.id,
            CONFIG_HASH: service.config_hash,
            PORT: str(port),
            VERSION: str(HANDLE_VERSION),
            START: secrets.token_hex(8),
        }

    def _launch(self, service_id: str, command: Command) -> tuple[psutil.Process, Output]:
        """Execute the command; return its process and the reader of its output."""
        path = self._records.fifo(service_id)
        try:
            self._records.prepare()
            writer = create_fifo(path)
        except OSError as error:
            raise RuntimeFailureError(f"cannot write to {path.parent}: {error.strerror}") from error
        output = Output(path, self.logs(service_id), self._wall)
        try:
            return psutil.Process(_spawn(command, writer)), output
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            output.close()
            path.unlink(missing_ok=True)
            raise explain_failure(command, error) from error
        finally:
            os.close(writer)

    def _save(self, handle: Handle) -> None:
        try:
            self._records.save(handle)
        except OSError as error:
            logger.warning(
                "cannot write the handle of {} ({}); its marks still identify the process",
                handle.service_id,
                error.strerror,
            )

    def _running(self) -> list[Handle]:
        return [handle for handle, tracked in self._tracked.items() if tracked.reports.exit is None]

    def _forget_ended(self, service_id: str) -> None:
        """Forget earlier processes of a service; their watchers have seen the exit."""
        for handle, tracked in tuple(self._tracked.items()):
            if handle.service_id == service_id and tracked.reports.exit is not None:
                del self._tracked[handle]

    def _find(self, handle: Handle) -> Tracked | None:
        """Return the process; follow it if it is from before a restart; None when nothing of it runs."""
        if handle in self._tracked:
            return self._tracked[handle]
        session = self._session(handle)
        if session is None:
            self._records.remove(handle)
            return None
        path = find_fifo(self._records.fifo(handle.service_id), session.members())
        self._save(handle)
        return self._track(handle, session, Output(path, self.logs(handle.service_id), self._wall))

    def _session(self, handle: Handle) -> Session | None:
        pid = number(handle.ref)
        return Session.find(pid, handle.started, partial(self._marked_as, handle)) if pid else None

    def _track(self, handle: Handle, session: Session, output: Output) -> Tracked:
        tracked = self._tracked[handle] = Tracked(session, output, oom_kills=self._oom_kills())
        tracked.end = self._background.run(partial(self._follow, handle, tracked), "processes")
        return tracked

    async def _follow(self, handle: Handle, tracked: Tracked) -> None:
        """Wait for the leader, end its descendants, read the rest of the output, and report the exit."""
        await tracked.session.leader_ended()
        if tracked.code is None:
            tracked.code = tracked.session.reap()
        await tracked.session.end()
        await tracked.output.finish()
        self._records.remove(handle)
        out_of_memory = not tracked.killed and self._memory_ran_out(tracked)
        tracked.reports.publish(Exit(tracked.code, describe_exit(tracked.code, out_of_memory=out_of_memory)))

    def _memory_ran_out(self, tracked: Tracked) -> bool:
        """Return whether the kernel may have killed this process for lack of memory.

        The kernel counts such kills, but only root can read which processes they were.
        """
        if tracked.code not in KILLED:
            return False
        count = self._oom_kills()
        ran_out = count > tracked.oom_kills
        for other in self._tracked.values():
            other.oom_kills = count  # a kill accounts for one end only
        return ran_out

    def _marked(self) -> Iterator[Handle]:
        """Yield every live process that carries our marks; what leads no session is unfit to be adopted."""
        for pid in psutil.pids():
            marks = environment(pid)
            port, version = number(marks.get(PORT, "")), number(marks.get(VERSION, "1"))
            if marks.get(OWNER) == self._owner and SERVICE in marks and port and not has_ended(pid):
                started = began(pid)
                fit = version if is_leader(pid) else UNFIT
                if started is not None:
                    yield make_handle(
                        service_id=marks[SERVICE],
                        config_hash=marks.get(CONFIG_HASH, ""),
                        pid=pid,
                        started=started,
                        port=port,
                        version=fit,
                        mark=marks.get(START, ""),
                    )

    def _marked_as(self, handle: Handle) -> list[int]:
        """Return the pids of the live processes that carry the marks of one start."""
        return [int(one.ref) for one in self._marked() if start_of(one) == start_of(handle)]


def _spawn(command: Command, writer: int) -> int:
    """Execute a command in a session of its own; return its pid.

    Raises:
        OSError: It cannot be executed.
    """
    process = subprocess.Popen(
        command.arguments,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        env=command.env,
        cwd=command.workdir,
        start_new_session=True,
    )
    process.returncode = 0  # the session reaps it, so Popen must not
    return process.pid


def start_of(handle: Handle) -> tuple[object, ...]:
    """Return what all processes of one start have in common; earlier versions gave them no mark."""
    return handle.service_id, handle.upstreams, handle.mark


def number(text: str) -> int:
    """Return a number in digits; 0 for anything else."""
    return int(text) if text.isdecimal() else 0


def environment(pid: int) -> Mapping[str, str]:
    """Return the initial environment of a process of our own user; empty when it cannot be read."""
    try:
        process = psutil.Process(pid)
        return process.environ() if process.uids().real == os.getuid() else {}
    except psutil.Error:
        return {}


def describe_exit(code: int | None, *, out_of_memory: bool = False) -> str:
    """Return how a process ended, in words.

    >>> describe_exit(3), describe_exit(-9), describe_exit(None)
    ('exit code 3', 'killed by SIGKILL', 'ended (exit code unknown: adopted)')
    >>> describe_exit(-9, out_of_memory=True)
    'killed: out of memory'
    """
    if out_of_memory:
        return "killed: out of memory"
    if code is None:
        return "ended (exit code unknown: adopted)"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
