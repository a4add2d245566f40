"""Services run as child processes of the proxy, which survive it and are found again.

Each is the leader of a session of its own and carries marks in its environment, by which it is known as ours
even where no file tells of it: when the proxy was killed before it could write one, or the disk was full.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from loguru import logger

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.logring import LogRing
from ai_proxy.core.placement import Placement
from ai_proxy.core.ports import RuntimeCapabilities, Tell
from ai_proxy.core.service import Exit, Handle, ProcessLaunch, Report, Service
from ai_proxy.platform import tasks
from ai_proxy.runtimes.process import logs as output
from ai_proxy.runtimes.process.command import Command, build_command, explain_failure
from ai_proxy.runtimes.process.logs import Output
from ai_proxy.runtimes.process.ports import find_free_port, require_free_port
from ai_proxy.runtimes.process.records import HOST, Records, make_handle
from ai_proxy.runtimes.process.session import Session, is_leader

OWNER = "AI_PROXY_OWNER"
SERVICE = "AI_PROXY_SERVICE"
CONFIG_HASH = "AI_PROXY_CONFIG_HASH"
PORT = "AI_PROXY_PORT"

FORCE_TIMEOUT = 10.0
"""Longest wait, in seconds, for the end of a process that was killed."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A process service that runs or ran, and the task that sees it to its end."""

    session: Session
    end: asyncio.Task[Exit]


class ProcessRuntime:
    """Runs services as processes; implements `core.ports.Runtime`.

    Args:
        state_dir: A folder of its own, made for the owner only.
        owner: Tells this proxy's processes from those of others on the machine.
        wall: Returns seconds since the epoch.
    """

    capabilities = RuntimeCapabilities()

    def __init__(self, state_dir: Path, owner: str, wall: Callable[[], float] = time.time) -> None:
        self._records = Records(state_dir)
        self._owner = owner
        self._wall = wall
        self._rings: dict[str, LogRing] = {}
        self._instances: dict[Handle, Instance] = {}

    def __repr__(self) -> str:
        return f"<ProcessRuntime {self._owner} [{len(self._running())} running]>"

    async def start(self, service: Service, placement: Placement, tell: Tell) -> Handle:  # noqa: ARG002
        """Launch the service. Nothing is awaited here, so it is done in full or not at all."""
        launch = service.launch
        if not isinstance(launch, ProcessLaunch):
            raise RuntimeFailureError(f"{service.id} has no command: it cannot be run as a process")
        port = self._choose_port(launch)
        command = build_command(launch, port, os.environ, self._marks(service, port))
        pid, started, lines = self._launch(service.id, command)
        handle = make_handle(service.id, service.config_hash, pid, started, port)
        self._save(handle)
        self._forget_ended(service.id)
        self._watch(handle, Session(pid, psutil.Process(pid)), lines)
        return handle

    async def stop(self, handle: Handle, grace: float) -> None:
        """Send SIGTERM to its group, after `grace` seconds SIGKILL to its session."""
        instance = self._find(handle)
        if instance is None:
            return
        instance.session.signal(signal.SIGTERM)
        instance.session.signal(signal.SIGCONT)
        await asyncio.wait({instance.end}, timeout=grace)
        if not instance.end.done():
            instance.session.kill()
            await asyncio.wait({instance.end}, timeout=FORCE_TIMEOUT)
        if not instance.end.done():
            raise RuntimeFailureError(
                f"{handle.service_id} (pid {handle.ref}) does not end even by SIGKILL: "
                "it hangs in the kernel, most often in a driver or a network file system"
            )
        instance.end.result()

    async def watch(self, handle: Handle) -> AsyncGenerator[Report, None]:
        """Report the exit when nothing of it runs any more."""
        instance = self._find(handle)
        if instance is None:
            yield Exit(None, "had ended before")
        else:
            yield await asyncio.shield(instance.end)

    async def handles(self) -> Sequence[Handle]:
        """Return what runs: known, on file, or told by its marks."""
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

    async def close(self) -> None:
        """Let go of everything and leave it running."""
        await tasks.cancel(*(instance.end for instance in self._instances.values()))
        self._instances.clear()

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
        }

    def _launch(self, service_id: str, command: Command) -> tuple[int, float, Output]:
        """Execute the command; return its pid, its start time and the reader of its output."""
        path = self._records.fifo(service_id)
        try:
            self._records.prepare()
            writer = output.create(path)
        except OSError as error:
            raise RuntimeFailureError(f"cannot write to {path.parent}: {error.strerror}") from error
        lines = Output(path, self.logs(service_id), self._wall)
        try:
            pid = _spawn(command, writer)
        except OSError as error:
            lines.close()
            path.unlink(missing_ok=True)
            raise explain_failure(command, error) from error
        finally:
            os.close(writer)
        return pid, psutil.Process(pid).create_time(), lines

    def _save(self, handle: Handle) -> None:
        try:
            self._records.save(handle)
        except OSError as error:
            logger.warning(
                "the handle of {} could not be written ({}); its process is still known by its marks",
                handle.service_id,
                error.strerror,
            )

    def _running(self) -> list[Handle]:
        return [handle for handle, instance in self._instances.items() if not instance.end.done()]

    def _forget_ended(self, service_id: str) -> None:
        """Drop how earlier instances ended: whoever wanted to know has asked by now."""
        for handle, instance in tuple(self._instances.items()):
            if handle.service_id == service_id and instance.end.done():
                del self._instances[handle]

    def _find(self, handle: Handle) -> Instance | None:
        """Return the instance, adopting it if it is from before; None when nothing of it runs."""
        if handle in self._instances:
            return self._instances[handle]
        session = self._session(handle)
        if session is None:
            self._records.remove(handle)
            return None
        path = self._records.fifo(handle.service_id)
        return self._watch(handle, session, Output(path, self.logs(handle.service_id), self._wall))

    def _session(self, handle: Handle) -> Session | None:
        return Session.find(int(handle.ref), handle.started, self._is_ours)

    def _watch(self, handle: Handle, session: Session, lines: Output) -> Instance:
        end = tasks.spawn(self._see_to_its_end(handle, session, lines), f"process {handle.service_id}")
        self._instances[handle] = Instance(session, end)
        return self._instances[handle]

    async def _see_to_its_end(self, handle: Handle, session: Session, lines: Output) -> Exit:
        """Wait for the leader, end what it leaves behind, take the rest of the output, tidy up."""
        try:
            await session.leader_ended()
            code = session.reap()
            await session.end()
            await lines.finish()
        finally:
            lines.close()
        self._records.remove(handle)
        return Exit(code, describe_exit(code))

    def _is_ours(self, pid: int) -> bool:
        return environment(pid).get(OWNER) == self._owner

    def _marked(self) -> Iterator[Handle]:
        """Yield the session leaders that carry our marks."""
        for pid in filter(is_leader, psutil.pids()):
            marks = environment(pid)
            if marks.get(OWNER) == self._owner and SERVICE in marks and marks.get(PORT, "").isdigit():
                with contextlib.suppress(psutil.Error):
                    started = psutil.Process(pid).create_time()
                    config_hash = marks.get(CONFIG_HASH, "")
                    yield make_handle(marks[SERVICE], config_hash, pid, started, int(marks[PORT]))


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
    process.returncode = 0  # the session reaps it, so this object has nothing more to look after
    return process.pid


def environment(pid: int) -> Mapping[str, str]:
    """Return the environment a process of our own user was started with; empty when it cannot be read."""
    try:
        process = psutil.Process(pid)
        return process.environ() if process.uids().real == os.getuid() else {}
    except psutil.Error:
        return {}


def describe_exit(code: int | None) -> str:
    """Say how a process ended.

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
