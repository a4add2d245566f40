import multiprocessing
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from ai_proxy.platform.run_folder import (
    AlreadyRunningError,
    NotRunningError,
    RunDirError,
    SeveralRunningError,
    base_folder,
    create_instance_folder,
    find_instance,
    lock_instance,
)


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def run_instance(base: Path, port: int, sockets: ExitStack) -> Path:
    folder = create_instance_folder(base, port)
    listener = sockets.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(folder / "control.sock"))
    listener.listen()
    return folder


@pytest.mark.threat("a local user", "keys, pepper, logs or sockets in the data and run directories")
def test_folder_is_private(tmp_path: Path) -> None:
    folder = create_instance_folder(tmp_path / "run", 11000)

    assert folder == tmp_path / "run" / "11000"
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert create_instance_folder(tmp_path / "run", 11000) == folder


def test_without_environment_the_folder_is_the_users_own_in_tmp() -> None:
    assert base_folder(None, {}).name == f"ai-proxy-{os.geteuid()}"


@pytest.mark.threat("a local user", "control through a prepared run directory")
def test_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "run"
    base.mkdir()
    base.chmod(0o777)

    with pytest.raises(RunDirError, match="chmod 700"):
        create_instance_folder(base, 1)


@pytest.mark.threat("a local user", "control through a prepared run directory")
def test_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(RunDirError, match="not a folder"):
        create_instance_folder(tmp_path / "run", 1)


def test_file_in_the_way_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")

    with pytest.raises(RunDirError, match="--run-dir"):
        create_instance_folder(tmp_path / "run" / "deeper", 1)


def test_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="too long for a Unix socket"):
        create_instance_folder(tmp_path / ("x" * 100), 1)


def test_one_running_instance_is_found(tmp_path: Path, sockets: ExitStack) -> None:
    folder = run_instance(tmp_path, 11000, sockets)

    assert find_instance(tmp_path) == find_instance(tmp_path, 11000) == folder


def test_instance_that_has_ended_is_not_found(tmp_path: Path, sockets: ExitStack) -> None:
    run_instance(tmp_path, 11000, sockets)
    sockets.close()

    with pytest.raises(NotRunningError, match="no ai-proxy is running; start one with 'ai-proxy serve'"):
        find_instance(tmp_path)


def test_nothing_runs_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="on port 5"):
        find_instance(tmp_path / "nowhere", 5)


def test_of_several_instances_one_must_be_chosen(tmp_path: Path, sockets: ExitStack) -> None:
    run_instance(tmp_path, 9000, sockets)
    second = run_instance(tmp_path, 11000, sockets)

    with pytest.raises(SeveralRunningError, match="9000, 11000; choose one with --port"):
        find_instance(tmp_path)
    assert find_instance(tmp_path, 11000) == second


def test_second_instance_on_a_port_is_told_of_the_first(tmp_path: Path) -> None:
    folder = create_instance_folder(tmp_path, 11000)

    with lock_instance(folder), pytest.raises(AlreadyRunningError, match=f"pid {os.getpid()}.*port 11000"):
        lock_instance(folder).__enter__()


def hold(folder: Path, held: Event, end: Event) -> None:
    with lock_instance(folder):
        held.set()
        end.wait(30)


def test_lock_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    folder = create_instance_folder(tmp_path, 11000)
    forking = multiprocessing.get_context("fork")
    held, end = forking.Event(), forking.Event()
    holder = forking.Process(target=hold, args=(folder, held, end))
    holder.start()
    assert held.wait(30)

    with pytest.raises(AlreadyRunningError, match=f"pid {holder.pid}"):
        lock_instance(folder).__enter__()
    holder.kill()
    holder.join()

    with lock_instance(folder):
        assert (folder / "lock").read_text() == f"{os.getpid()}\n"
