"""Stores handles of processes, so that the next proxy finds what this one left running."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from ai_proxy.core.service import HANDLE_VERSION, Handle, Upstream
from ai_proxy.platform.private_files import FOLDER_MODE, make_folders, private_opener, set_mode
from ai_proxy.platform.process import boot_id

HOST = "127.0.0.1"
"""The address on which processes listen."""


class Record(msgspec.Struct, frozen=True):
    """A handle as it is on disk."""

    service_id: str
    config_hash: str
    pid: int
    started: float
    port: int
    version: int = 1
    boot: str = ""
    mark: str = ""


def make_handle(
    service_id: str,
    config_hash: str,
    pid: int,
    started: float,
    port: int,
    version: int = HANDLE_VERSION,
    mark: str = "",
) -> Handle:
    """Return the handle of a process.

    Args:
        service_id: The service it runs.
        config_hash: Of its declaration.
        pid: Its pid.
        started: Its start, as `platform.process.began` tells it.
        port: The port it was given.
        version: Of the proxy's handles when it was started.
        mark: In the environment of it and its descendants.
    """
    return Handle(service_id, config_hash, str(pid), started, (Upstream(HOST, port),), version, mark)


class Records:
    """One file per service in a private folder, with the FIFO of its output beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Make the folder, accessible to the owner only."""
        make_folders(self._folder)
        set_mode(self._folder, FOLDER_MODE)

    def fifo(self, service_id: str) -> Path:
        """Return the path of a service's output FIFO."""
        return self._folder / f"{quote(service_id, safe='')}.out"

    def with_output(self, holds: Callable[[Path], bool]) -> set[str]:
        """Return the services whose FIFO fulfils a condition."""
        return {unquote(path.stem) for path in self._folder.glob("*.out") if holds(path)}

    def save(self, handle: Handle) -> None:
        """Replace the handle of a service atomically."""
        record = Record(
            service_id=handle.service_id,
            config_hash=handle.config_hash,
            pid=int(handle.ref),
            started=handle.started,
            port=handle.upstreams[0].port,
            version=handle.version,
            boot=boot_id(),
            mark=handle.mark,
        )
        self.prepare()
        path = self._path(handle.service_id)
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb", opener=private_opener) as file:
            file.write(msgspec.json.encode(record))
        temporary.replace(path)

    def load(self) -> list[Handle]:
        """Return every handle; unreadable files, and those of an earlier boot of the system, are left out."""
        handles = (_parse(path) for path in sorted(self._folder.glob("*.json")))
        return [handle for handle in handles if handle is not None]

    def remove(self, handle: Handle) -> None:
        """Remove a handle and its FIFO, unless the service has a newer one."""
        path = self._path(handle.service_id)
        if _parse(path) in (handle, None):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                self.fifo(handle.service_id).unlink(missing_ok=True)

    def _path(self, service_id: str) -> Path:
        return self._folder / f"{quote(service_id, safe='')}.json"


def _parse(path: Path) -> Handle | None:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, ValueError, RecursionError):
        return None
    if record.boot != boot_id():
        return None
    return make_handle(
        record.service_id,
        record.config_hash,
        record.pid,
        record.started,
        record.port,
        record.version,
        record.mark,
    )
