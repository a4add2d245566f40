"""Instances in the background: started as detached processes, ended by SIGTERM, then by SIGKILL."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from ai_proxy.core.errors import ProxyError
from ai_proxy.core.options import LogFormat, ServeOptions
from ai_proxy.core.service import Service
from ai_proxy.core.settings import Limits
from ai_proxy.core.store_ports import Instance, InstanceStore
from ai_proxy.instances.status import answers, is_here, process_of
from ai_proxy.platform.private_files import make_folders, private_opener
from ai_proxy.runtimes.process.session import ended

POLL = 0.03
"""Seconds between two looks for the entry of an instance that starts."""
LOG_LINES = 20
"""Last lines of the log in the error of a failed start."""
MARGIN = 5.0
"""Seconds that an instance has to end, beyond the time for its requests and backends."""
KILL_WITHIN = 10.0
"""Seconds that a killed process has to disappear; it may hang in the kernel."""


class Outcome(StrEnum):
    """The result of stopping an instance."""

    STOPPED = "stopped"
    KILLED = "killed"
    DEAD = "dead"


class StartError(ProxyError):
    """A proxy did not start."""

    code, title = "proxy_not_started", "The proxy did not start"


class StopError(ProxyError):
    """A proxy could not be stopped."""

    code, title = "proxy_not_stopped", "The proxy could not be stopped"


@dataclass(frozen=True, slots=True)
class Launched:
    """An instance that was started, and may not serve yet.

    Attributes:
        process: Its process, a child of ours that outlives us.
        log: The file of its output.
        log_start: Where its output begins in the file, in bytes.
    """

    process: subprocess.Popen[bytes]
    log: Path
    log_start: int

    def __repr__(self) -> str:
        return f"<Launched [pid {self.process.pid}, {self.log}]>"

    def last_lines(self) -> list[str]:
        """Return the last lines of its output."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace").splitlines()[-LOG_LINES:]


def log_path(folder: Path, port: int) -> Path:
    """Return the log file of the instance on a port.

    >>> log_path(Path("/srv/ai-proxy"), 11000)
    PosixPath('/srv/ai-proxy/logs/proxy-11000.log')
    """
    return folder / "logs" / f"proxy-{port}.log"


def serve_command(options: ServeOptions) -> list[str]:
    """Return the command that serves with these options, without those that have their default.

    >>> serve_command(ServeOptions(port=11001, detect=False))[1:]
    ['-P', '-m', 'ai_proxy', 'serve', '--port', '11001', '--log-level', 'info', '--no-detect']
    """
    values = {
        "--config": options.config,
        "--host": options.host,
        "--port": options.port,
        "--log-level": options.log_level,
        "--log-format": None if options.log_format is LogFormat.TEXT else options.log_format,
        "--log-file": options.log_file,
        "--run-dir": options.run_dir,
        "--tls-mode": options.tls_mode,
        "--acme-email": options.acme_email,
    }
    given = [word for name, value in values.items() if value is not None for word in (name, str(value))]
    domains = [word for domain in options.acme_domains for word in ("--acme-domain", domain)]
    detect = {None: [], True: ["--detect"], False: ["--no-detect"]}[options.detect]
    # -P: modules in the current folder are not imported.
    return [sys.executable, "-P", "-m", "ai_proxy", "serve", *given, *domains, *detect]


def launch(options: ServeOptions, log: Path) -> Launched:
    """Start an instance that survives the terminal and this process.

    Args:
        options: How it serves.
        log: The file for its output.

    Raises:
        StartError: The log file cannot be written.
    """
    try:
        make_folders(log.parent)
        descriptor = private_opener(os.fspath(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError as error:
        raise StartError(
            f"cannot write the log {log}: {error.strerror}; choose another folder with AI_PROXY_DATA_DIR"
        ) from error
    with os.fdopen(descriptor, "ab") as output:
        begin = os.fstat(descriptor).st_size
        process = subprocess.Popen(
            serve_command(options),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Launched(process, log, begin)


async def until_answering(launched: Launched, instances: InstanceStore, patience: float) -> Instance:
    """Wait until an instance answers, and return its entry in the store.

    Raises:
        StartError: It ended, or did not answer in time.
        StoreError: The entries cannot be read.
    """
    deadline = time.monotonic() + patience
    while launched.process.poll() is None:
        instance = await _entry_of(launched.process.pid, instances)
        if instance is not None and await asyncio.to_thread(answers, instance):
            return instance
        if time.monotonic() > deadline:
            raise _failure(launched, f"the proxy did not answer within {patience:g} s and was ended")
        await asyncio.sleep(POLL)
    code = launched.process.returncode
    raise _failure(launched, f"the proxy ended before it answered, with exit code {code}")


async def _entry_of(pid: int, instances: InstanceStore) -> Instance | None:
    """Return the entry of a child of ours; the system cannot have given its pid to another process."""
    own = (instance for instance in await instances.all() if instance.pid == pid and is_here(instance))
    return next((instance for instance in own if process_of(instance) is not None), None)


def _failure(launched: Launched, what: str) -> StartError:
    lines = launched.last_lines()
    end = "; the end of it:" if lines else "; it is empty"
    return StartError(
        "\n".join([f"{what}; its log is {launched.log}{end}", *(f"  | {one}" for one in lines)])
    )


def give_up(launched: Launched) -> None:
    """End an instance that does not serve."""
    launched.process.terminate()
    try:
        launched.process.wait(MARGIN)
    except subprocess.TimeoutExpired:
        launched.process.kill()
        launched.process.wait()


def drain_time(limits: Limits, services: Iterable[Service]) -> float:
    """Return the seconds that an instance may take to end: its requests in flight, then its backends.

    >>> drain_time(Limits(shutdown_timeout=30.0), ())
    35.0
    """
    return limits.shutdown_timeout + max((service.stop_grace for service in services), default=0.0) + MARGIN


async def end(instance: Instance, patience: float) -> Outcome:
    """End an instance on this machine: with SIGTERM, and with SIGKILL when it does not end in time.

    SIGKILL goes to its own process only: the next instance adopts the backends that it leaves.

    Args:
        instance: Its entry in the store.
        patience: Seconds until SIGKILL.

    Raises:
        StopError: The process belongs to another user, or survives SIGKILL.
    """
    process = process_of(instance)
    if process is None:
        return Outcome.DEAD
    try:
        process.terminate()
        if await _ended_within(process, patience):
            return Outcome.STOPPED
        process.kill()
    except psutil.NoSuchProcess:
        return Outcome.STOPPED
    except psutil.AccessDenied as error:
        raise StopError(
            f"process {process.pid} belongs to another user: stop the proxy as that user"
        ) from error
    if not await _ended_within(process, KILL_WITHIN):
        raise StopError(
            f"process {process.pid} survives SIGKILL: it hangs in the kernel; restart the machine to end it"
        )
    return Outcome.KILLED


async def _ended_within(process: psutil.Process, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await ended(process.pid)
    except TimeoutError:
        return False
    return True
