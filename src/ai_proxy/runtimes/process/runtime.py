"""Runs services as child processes, which survive the proxy.

Each process leads a session of its own. Marks in its environment identify it even without a file: when the
proxy was killed before it could write one, or the disk was full.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.base import Reports
from ai_proxy.runtimes.process.command import Command, build_command, explain_failure
from ai_proxy.runtimes.process.logs import Output, create_fifo
from ai_proxy.runtimes.process.ports import find_free_port, require_free_port
from ai_proxy.runtimes.process.records import HOST, Records, make_handle
from ai_proxy.runtimes.process.session import Session, is_leader

OWNER = "AI_PROXY_OWNER"
SERVICE = "AI_PROXY_SERVICE"
CONFIG_HASH = "AI_PROXY_CONFIG_HASH"
PORT = "AI_PROXY_PORT"
VERSION = "AI_PROXY_HANDLE_VERSION"

FORCE_TIMEOUT = 10.0
"""Longest wait, in seconds, for the end of a process that was killed."""


@dataclass(slots=True, eq=False)
class Tracked:
    """A process that runs or ran, and the task that waits for its exit.

    Attributes:
        session: The process and its descendants.
        output: Reads what they write.
        reports: Of its exit.
        code: Exit code of the leader; None before it was reaped.
        end: The task.
    """

    session: Session
    output: Output
    reports: Reports = field(default_factory=Reports)
    code: int | None = None
    end: asyncio.Task[None] = field(init=False)


class ProcessRuntime:
    """Runs services as processes; implements `core.ports.Runtime`.

    Args:
        state_dir: A private folder; created when needed.
        owner: Mark that distinguishes this proxy's processes from those of others.
        background: Owns the tasks that wait for exits.
        wall: Returns seconds since the epoch.
    """

    capabilities = RuntimeCapabilities()

    def __init__(
        self, state_dir: Path, owner: str, background: Background, wall: Callable[[], float] = time.time
    ) -> None:
        self._records = Records(state_dir)
        self._owner = owner
        self._background = background
        self._wall = wall
        self._rings: dict[str, LogRing] = {}
        self._tracked: dict[Handle, Tracked] = {}

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
        handle = make_handle(service.id, service.config_hash, process.pid, process.create_time(), port)
        self._save(handle)
        self._forget_ended(service.id)
        self._track(handle, Session(process.pid, process), output)
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
        found = {handle.ref: handle for handle in self._running()}
        for handle in self._records.load():
            if handle.ref not in found and self._session(handle):
                found[handle.ref] = handle
            elif found.get(handle.ref) != handle:
                self._records.remove(handle)
        for handle in self._marked():
            found.setdefault(handle.ref, handle)
        return list(found.values())

    def logs(self, service_id: str) -> LogRing:
        """Return the ring that holds the last lines of the service's output."""
        return self._rings.setdefault(service_id, LogRing())

    async def aclose(self) -> None:
        """Stop following; the processes go on running."""
        await tasks.cancel(*(tracked.end for tracked in self._tracked.values()))
        for tracked in self._tracked.values():
            tracked.output.close()
        self._tracked.clear()

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
        path = self._records.fifo(handle.service_id)
        return self._track(handle, session, Output(path, self.logs(handle.service_id), self._wall))

    def _session(self, handle: Handle) -> Session | None:
        pid = number(handle.ref)
        return Session.find(pid, handle.started, self._is_ours) if pid else None

    def _track(self, handle: Handle, session: Session, output: Output) -> Tracked:
        tracked = self._tracked[handle] = Tracked(session, output)
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
        tracked.reports.publish(Exit(tracked.code, describe_exit(tracked.code)))

    def _is_ours(self, pid: int) -> bool:
        return environment(pid).get(OWNER) == self._owner

    def _marked(self) -> Iterator[Handle]:
        """Yield the session leaders that carry our marks."""
        for pid in filter(is_leader, psutil.pids()):
            marks = environment(pid)
            port, version = number(marks.get(PORT, "")), number(marks.get(VERSION, "1"))
            if marks.get(OWNER) == self._owner and SERVICE in marks and port:
                with contextlib.suppress(psutil.Error):
                    started = psutil.Process(pid).create_time()
                    yield make_handle(marks[SERVICE], marks.get(CONFIG_HASH, ""), pid, started, port, version)


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


def describe_exit(code: int | None) -> str:
    """Return how a process ended, in words.

    >>> describe_exit(3), describe_exit(-9), describe_exit(None)
    ('exit code 3', 'killed by SIGKILL', 'ended (exit code unknown: adopted)')
    """
    if code is None:
        return "ended (exit code unknown: adopted)"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
