"""The run directory: a running instance keeps its sockets there, and the command line finds it there.

`<base>/<port>/` belongs to the instance that is configured to serve on that port. It holds `control.sock`
(the owner's API), `gateway.sock` (the API for clients), `lock` (held while the instance runs, contains its
pid) and `process/` (records of the process runtime). Only the owner may enter it.
"""

import fcntl
import os
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ai_proxy.platform.private_files import FOLDER_MODE, make_folders, private_opener, set_mode

MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket, in bytes: `sun_path` of sockaddr_un without its final zero (unix(7))."""


class RunDirError(Exception):
    """A run directory is unusable; the message says why and what to do.

    Attributes:
        code: Stable name, for scripts.
    """

    code: ClassVar[str] = "run_dir_unusable"


class NotRunningError(RunDirError):
    """No instance is running."""

    code = "not_running"


class SeveralRunningError(RunDirError):
    """Several instances are running, and none was chosen."""

    code = "several_running"


class AlreadyRunningError(RunDirError):
    """Another instance already serves on the port."""

    code = "already_running"


def base_folder(chosen: Path | None, env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that holds the instances' folders: the chosen one, else the environment's.

    >>> base_folder(Path("/run/here"), {"AI_PROXY_RUN_DIR": "/run/there"})
    PosixPath('/run/here')
    >>> base_folder(None, {"AI_PROXY_RUN_DIR": "/run/there", "XDG_RUNTIME_DIR": "/run/user/1"})
    PosixPath('/run/there')
    >>> base_folder(None, {"XDG_RUNTIME_DIR": "/run/user/1"})
    PosixPath('/run/user/1/ai-proxy')
    """
    if chosen is not None:
        return chosen
    if named := env.get("AI_PROXY_RUN_DIR"):
        return Path(named)
    if runtime_dir := env.get("XDG_RUNTIME_DIR"):
        return Path(runtime_dir) / "ai-proxy"
    return Path("/tmp") / f"ai-proxy-{os.geteuid()}"  # noqa: S108 - made private, its owner is verified


def create_instance_folder(base: Path, port: int) -> Path:
    """Create the folder of the instance configured to serve on `port`, mode 0700, and return it.

    Raises:
        RunDirError: It cannot be created, others may access it, or its path is too long for Unix sockets.
    """
    folder = (base / str(port)).absolute()
    for name in ("control.sock", "gateway.sock"):
        check_socket_path(folder / name)
    try:
        make_folders(base)
        _check_private(base)
        make_folders(folder)
        _check_private(folder)
        set_mode(folder, FOLDER_MODE)
    except OSError as error:
        raise RunDirError(
            f"cannot use the run directory {folder}: {error.strerror}; choose another with --run-dir"
        ) from error
    return folder


def check_socket_path(path: Path) -> None:
    """Raise an error for a path that is too long for a Unix socket.

    Raises:
        RunDirError: The path is too long.
    """
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH:
        raise RunDirError(
            f"{path} is too long for a Unix socket ({size} bytes, at most {MAX_SOCKET_PATH});"
            " choose a shorter folder with --run-dir or AI_PROXY_RUN_DIR"
        )


def _check_private(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise RunDirError(f"{folder} is not a folder; remove it or choose another with --run-dir")
    if found.st_uid != os.geteuid():
        raise RunDirError(
            f"{folder} belongs to another user (uid {found.st_uid}); choose another with --run-dir"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RunDirError(
            f"others may write to {folder}; run 'chmod 700 {folder}' or choose another with --run-dir"
        )


@contextmanager
def lock_instance(folder: Path) -> Iterator[None]:
    """Lock an instance's folder; the system releases the lock however the process ends.

    Raises:
        AlreadyRunningError: Another process holds the lock.
    """
    descriptor = private_opener(os.fspath(folder / "lock"), os.O_RDWR | os.O_CREAT)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = file.read().strip() or "unknown"
            raise AlreadyRunningError(
                f"another ai-proxy (pid {pid}) is already serving on port {folder.name};"
                " choose another with --port"
            ) from None
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


MODELS = "models.sock"
"""Socket in an instance's folder that serves models to the owner, without a key or TLS."""


def find_instance(base: Path, port: int | None = None) -> Path:
    """Return the folder of the one running instance, or of the one on `port`.

    Raises:
        NotRunningError: No instance is running there.
        SeveralRunningError: Several are running, and `port` is None.
    """
    running = running_instances(base)
    if port is not None:
        running = [folder for folder in running if folder.name == str(port)]
    if not running:
        where = "" if port is None else f" on port {port}"
        raise NotRunningError(f"no ai-proxy is running{where}; start one with 'ai-proxy serve'")
    if len(running) > 1:
        ports = ", ".join(folder.name for folder in running)
        raise SeveralRunningError(
            f"several ai-proxy instances are running, on ports {ports}; choose one with --port"
        )
    return running[0]


def running_instances(base: Path) -> list[Path]:
    """Return the folders of the running instances, in the order of their ports."""
    found = [
        folder for folder in base.glob("*") if folder.name.isdecimal() and _answers(folder / "control.sock")
    ]
    return sorted(found, key=lambda folder: int(folder.name))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
        return True
