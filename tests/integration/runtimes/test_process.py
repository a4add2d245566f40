import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.integration.runtimes.conftest import Reopen

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.logring import LogRing
from ai_proxy.core.placement import Placement
from ai_proxy.core.service import Handle, ProcessLaunch, Service
from ai_proxy.platform import tasks
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.process import session
from ai_proxy.runtimes.process.records import Records, make_handle
from ai_proxy.runtimes.process.runtime import ProcessRuntime, environment
from ai_proxy.testing.contracts import exit_of, start
from ai_proxy.testing.fake_engine import Behaviour, fake_engine_command

SLEEP = ProcessLaunch(("sh", "-c", "echo hello; exec sleep 60"))
ESCAPING = ProcessLaunch(("sh", "-c", "setsid sh -c 'echo away; exec sleep 60' & exec sleep 60"))
"""Its child leaves the session."""
TALKING = ProcessLaunch(("sh", "-c", "while :; do seq 1000 2000; echo round; sleep 0.05; done"))
"""It fills the FIFO of its output within seconds."""


def service(launch: ProcessLaunch) -> Service:
    return Service("svc", "generic", "generic", launch, config_hash="1")


def texts(ring: LogRing) -> list[str]:
    return [line.text for line in ring.tail(100_000)]


async def heard(ring: LogRing, word: str) -> str:
    """Return the first line that holds a word, once there is one."""
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def look(text: str) -> None:
        if word in text and not found.done():
            found.set_result(text)

    stop = ring.watch(lambda line: look(line.text))
    for text in texts(ring):
        look(text)
    async with asyncio.timeout(60):
        result = await found
    stop()
    return result


def marked_processes(handle: Handle) -> list[int]:
    """Return the pids of all live processes of one start."""
    pids = [pid for pid in psutil.pids() if environment(pid).get("AI_PROXY_START") == handle.mark]
    return [pid for pid in pids if not session.has_ended(pid)]


class TestStart:
    async def test_it_sees_the_gpus_that_the_scheduler_chose(self, runtime: ProcessRuntime) -> None:
        launch = ProcessLaunch(("sh", "-c", "env"), env={"CUDA_VISIBLE_DEVICES": "7"})
        handle = await runtime.start(service(launch), Placement(devices=("0", "2")), lambda _: None)
        await exit_of(runtime, handle)
        assert "CUDA_VISIBLE_DEVICES=0,2" in texts(runtime.logs("svc"))

    async def test_it_runs_with_its_variables_workdir_and_marks(
        self, runtime: ProcessRuntime, tmp_path: Path
    ) -> None:
        launch = ProcessLaunch(("sh", "-c", "pwd; env"), env={"LISTEN": ":${port}"}, workdir=str(tmp_path))
        handle = await start(runtime, service(launch))
        await exit_of(runtime, handle)
        lines = texts(runtime.logs("svc"))
        assert lines[0] == str(tmp_path)
        port = handle.upstreams[0].port
        assert {f"LISTEN=:{port}", "AI_PROXY_SERVICE=svc", "AI_PROXY_CONFIG_HASH=1"} <= set(lines)

    async def test_a_taken_port_is_refused_with_the_name_of_its_holder(self, runtime: ProcessRuntime) -> None:
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
            launch = replace(SLEEP, port=port)
            with pytest.raises(RuntimeFailureError, match=rf"port {port} .* taken by .*pid {os.getpid()}"):
                await start(runtime, service(launch))

    async def test_a_fixed_port_is_used(self, runtime: ProcessRuntime) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        handle = await start(runtime, service(replace(SLEEP, port=port)))
        assert handle.upstreams[0].port == port

    @pytest.mark.parametrize(
        ("mode", "content", "reason"),
        [
            (0o644, b"#!/bin/sh\n", "is not executable: chmod"),
            (0o755, b"#!/no/such/interpreter\n", "the interpreter in its first line is missing"),
            (0o755, b"\x7fELF nonsense", "check that it is a program for this machine"),
        ],
    )
    async def test_a_file_that_is_no_program_is_refused(
        self, runtime: ProcessRuntime, tmp_path: Path, mode: int, content: bytes, reason: str
    ) -> None:
        program = tmp_path / "program"
        program.write_bytes(content)
        program.chmod(mode)
        with pytest.raises(RuntimeFailureError, match=reason):
            await start(runtime, service(ProcessLaunch((str(program),))))
        assert list(await runtime.handles()) == []

    async def test_a_state_folder_that_cannot_be_written_is_named(
        self, runtime: ProcessRuntime, state_dir: Path
    ) -> None:
        state_dir.touch()  # noqa: ASYNC240 - instant
        with pytest.raises(RuntimeFailureError, match=rf"cannot write to {state_dir}"):
            await start(runtime, service(SLEEP))


class TestStop:
    async def test_helpers_that_ignore_sigterm_do_not_outlive_their_leader(
        self, runtime: ProcessRuntime
    ) -> None:
        handle = await start(runtime, service(ProcessLaunch(fake_engine_command(Behaviour.CHILDREN))))
        await heard(runtime.logs("svc"), "listening")
        assert len(session.members(int(handle.ref))) == 3
        async with asyncio.timeout(30.0):
            await runtime.stop(handle, grace=60.0)
        assert session.members(int(handle.ref)) == []

    async def test_a_polite_end_keeps_its_exit_code(self, runtime: ProcessRuntime) -> None:
        script = "trap 'exit 7' TERM; echo hello; while :; do sleep 0.1; done"
        handle = await start(runtime, service(ProcessLaunch(("sh", "-c", script))))
        await heard(runtime.logs("svc"), "hello")
        await runtime.stop(handle, grace=10.0)
        assert (await exit_of(runtime, handle)).detail == "exit code 7"

    async def test_a_stopped_process_ends_too(self, runtime: ProcessRuntime) -> None:
        handle = await start(runtime, service(SLEEP))
        os.kill(int(handle.ref), signal.SIGSTOP)
        async with asyncio.timeout(30.0):
            await runtime.stop(handle, grace=60.0)
        assert (await exit_of(runtime, handle)).detail == "killed by SIGTERM"

    async def test_it_leaves_no_zombie_and_no_file(self, runtime: ProcessRuntime, state_dir: Path) -> None:
        handle = await start(runtime, service(SLEEP))
        await runtime.stop(handle, grace=10.0)
        assert not psutil.pid_exists(int(handle.ref))
        assert list(state_dir.iterdir()) == []  # noqa: ASYNC240 - instant

    async def test_a_cancelled_stop_can_be_repeated(self, runtime: ProcessRuntime) -> None:
        handle = await start(runtime, service(ProcessLaunch(fake_engine_command(Behaviour.IGNORE_SIGTERM))))
        await heard(runtime.logs("svc"), "listening")
        first = tasks.spawn(runtime.stop(handle, grace=60.0), "stop")
        await asyncio.sleep(0)
        await tasks.cancel(first)
        assert session.members(int(handle.ref))
        await runtime.stop(handle, grace=0.0)
        assert session.members(int(handle.ref)) == []


class TestCrash:
    async def test_helpers_left_behind_by_a_crash_are_ended(self, runtime: ProcessRuntime) -> None:
        handle = await start(runtime, service(ProcessLaunch(fake_engine_command(Behaviour.CHILDREN))))
        await heard(runtime.logs("svc"), "listening")
        os.kill(int(handle.ref), signal.SIGKILL)
        assert (await exit_of(runtime, handle)).detail == "killed by SIGKILL"
        assert session.members(int(handle.ref)) == []

    async def test_one_that_the_kernel_killed_for_memory_is_told_as_that(self, state_dir: Path) -> None:
        kills = [4]
        fresh = ProcessRuntime(state_dir, str(state_dir), Background(), oom_kills=lambda: kills[0])
        async with aclosing(fresh) as runtime:
            details = []
            for killed_by_kernel in (True, False):
                handle = await start(runtime, service(SLEEP))
                kills[0] += killed_by_kernel
                os.kill(int(handle.ref), signal.SIGKILL)
                details.append((await exit_of(runtime, handle)).detail)
        assert details == ["killed: out of memory", "killed by SIGKILL"]

    @pytest.mark.threat("a backend", "survival of its stop")
    async def test_children_that_left_the_session_are_ended(self, runtime: ProcessRuntime) -> None:
        handle = await start(runtime, service(ESCAPING))
        await heard(runtime.logs("svc"), "away")
        os.kill(int(handle.ref), signal.SIGKILL)
        await exit_of(runtime, handle)
        assert marked_processes(handle) == []

    async def test_the_last_lines_tell_why(self, runtime: ProcessRuntime) -> None:
        handle = await start(runtime, service(ProcessLaunch(fake_engine_command(Behaviour.EXIT_AT_ONCE))))
        end = await exit_of(runtime, handle)
        assert end.code == 3
        assert texts(runtime.logs("svc")) == [
            "error: failed to load model: out of memory",
            "fatal: cannot go on",
        ]


class TestOutput:
    async def test_all_of_it_is_there_when_wait_returns(self, runtime: ProcessRuntime) -> None:
        launch = ProcessLaunch(("sh", "-c", "seq 1 20000; printf 'no end'"))
        await exit_of(runtime, await start(runtime, service(launch)))
        assert texts(runtime.logs("svc"))[-2:] == ["20000", "no end"]

    async def test_a_flood_leaves_the_event_loop_to_others(self, runtime: ProcessRuntime) -> None:
        handle = await start(runtime, service(ProcessLaunch(("yes", ""))))
        await heard(runtime.logs("svc"), "")
        before = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - before < 0.25
        await runtime.stop(handle, grace=5.0)


LISTENING = "import socket,time; s=socket.create_server(('127.0.0.1', {port})); print('ready', flush=True); "
"""A program that listens, in Python."""


async def listening(runtime: ProcessRuntime, after: str = "time.sleep(60)") -> Handle:
    """Start a service that listens on its port, and return once it does."""
    code = LISTENING.replace("{port}", "${port}") + after
    handle = await start(runtime, service(ProcessLaunch((sys.executable, "-S", "-c", code))))
    await heard(runtime.logs("svc"), "ready")
    return handle


class TestListener:
    async def test_that_of_the_process_is_its_own(self, runtime: ProcessRuntime) -> None:
        assert runtime.listener_fault(await listening(runtime)) == ""

    async def test_that_of_a_descendant_in_another_session_is_its_own(self, runtime: ProcessRuntime) -> None:
        code = LISTENING.replace("{port}", "${port}") + "time.sleep(60)"
        launch = ProcessLaunch(("sh", "-c", f'setsid "{sys.executable}" -S -c "{code}" & exec sleep 60'))
        handle = await start(runtime, service(launch))
        await heard(runtime.logs("svc"), "ready")
        assert runtime.listener_fault(handle) == ""

    async def test_none_yet_is_told_as_a_refused_connection(self, runtime: ProcessRuntime) -> None:
        assert runtime.listener_fault(await start(runtime, service(SLEEP))) == "connection refused"

    @pytest.mark.threat("a local user", "prompts, by taking a backend's port")
    async def test_a_listener_of_another_program_is_a_fault_that_names_the_program(
        self, runtime: ProcessRuntime
    ) -> None:
        handle = await start(runtime, service(SLEEP))
        port = handle.upstreams[0].port
        with socket.create_server(("127.0.0.1", port)):
            fault = runtime.listener_fault(handle)
        assert re.fullmatch(rf"another program .*\(pid {os.getpid()}\) listens on its port {port}", fault)

    @pytest.mark.threat("a local user", "prompts, by taking a backend's port")
    async def test_one_that_takes_the_port_later_is_noticed(self, runtime: ProcessRuntime) -> None:
        close = "signal.signal(signal.SIGUSR1, lambda *_: (s.close(), print('closed', flush=True)))"
        handle = await listening(runtime, f"import signal; {close}; print('set', flush=True); time.sleep(60)")
        await heard(runtime.logs("svc"), "set")
        before = runtime.listener_fault(handle)
        os.kill(int(handle.ref), signal.SIGUSR1)
        await heard(runtime.logs("svc"), "closed")
        with socket.create_server(("127.0.0.1", handle.upstreams[0].port)):
            fault = runtime.listener_fault(handle)
        assert (before, fault[:15]) == ("", "another program")

    async def test_that_of_an_adopted_process_is_its_own(
        self, runtime: ProcessRuntime, reopen: Reopen
    ) -> None:
        handle = await listening(runtime)
        await runtime.aclose()
        later = reopen()
        watching = tasks.spawn(exit_of(later, handle), "watch")
        await asyncio.sleep(0)
        assert later.listener_fault(handle) == ""
        await tasks.cancel(watching)


class TestRecovery:
    async def test_another_process_with_the_same_pid_is_not_taken_for_it(
        self, runtime: ProcessRuntime
    ) -> None:
        handle = await start(runtime, service(SLEEP))
        stranger = replace(handle, started=handle.started - 3600.0, mark="another start")
        await runtime.stop(stranger, grace=0.0)
        assert (await exit_of(runtime, stranger)).detail == "had ended before"
        assert session.members(int(handle.ref))

    async def test_a_file_with_a_wrong_start_gives_way_to_the_marks(
        self, runtime: ProcessRuntime, reopen: Reopen, state_dir: Path
    ) -> None:
        handle = await start(runtime, service(SLEEP))
        Records(state_dir).save(replace(handle, started=handle.started - 10.0))
        assert list(await reopen().handles()) == [handle]

    async def test_a_file_about_a_process_that_is_gone_is_removed(
        self, runtime: ProcessRuntime, state_dir: Path
    ) -> None:
        records = Records(state_dir)
        records.prepare()
        records.save(make_handle("old", "1", os.getpid(), 1.0, 8080))
        assert list(await runtime.handles()) == []
        assert records.load() == []

    async def test_it_is_found_by_its_marks_when_no_file_could_be_written(
        self, runtime: ProcessRuntime, reopen: Reopen, state_dir: Path
    ) -> None:
        (state_dir / "svc.json").mkdir(parents=True)
        handle = await start(runtime, service(ProcessLaunch(("sleep", "60"))))
        assert list(await reopen().handles()) == [handle]

    async def test_it_is_found_by_its_marks_when_its_file_is_gone_or_damaged(
        self, runtime: ProcessRuntime, reopen: Reopen, state_dir: Path
    ) -> None:
        handle = await start(runtime, service(ProcessLaunch(("sleep", "60"))))
        (state_dir / "svc.json").write_text("{")
        assert list(await reopen().handles()) == [handle]

    @pytest.mark.parametrize("record", ["kept", "lost"])
    async def test_a_child_in_a_session_of_its_own_is_not_taken_for_its_leader(
        self, runtime: ProcessRuntime, reopen: Reopen, state_dir: Path, record: str
    ) -> None:
        handle = await start(runtime, service(ESCAPING))
        await heard(runtime.logs("svc"), "away")
        if record == "lost":
            (state_dir / "svc.json").unlink()
        assert list(await reopen().handles()) == [handle]

    async def test_a_child_whose_leader_died_unseen_is_found_and_ended(
        self, runtime: ProcessRuntime, reopen: Reopen
    ) -> None:
        handle = await start(runtime, service(ESCAPING))
        await heard(runtime.logs("svc"), "away")
        await runtime.aclose()
        os.kill(int(handle.ref), signal.SIGKILL)
        os.waitpid(int(handle.ref), 0)  # noqa: ASYNC222 - it is dead
        later = reopen()
        assert list(await later.handles()) == [handle]
        await later.stop(handle, grace=5.0)
        assert marked_processes(handle) == []

    async def test_the_output_is_read_on_when_its_file_is_gone(
        self, runtime: ProcessRuntime, reopen: Reopen, state_dir: Path
    ) -> None:
        handle = await start(runtime, service(TALKING))
        await heard(runtime.logs("svc"), "round")
        await runtime.aclose()
        shutil.rmtree(state_dir)
        later = reopen()
        assert list(await later.handles()) == [handle]
        watching = tasks.spawn(exit_of(later, handle), "watch")
        await heard(later.logs("svc"), "round")
        assert Records(state_dir).load() == [handle]
        await later.stop(handle, grace=5.0)
        await watching

    async def test_a_process_whose_output_nobody_could_read_is_not_adopted(
        self, runtime: ProcessRuntime, reopen: Reopen, state_dir: Path
    ) -> None:
        launch = ProcessLaunch(("sh", "-c", "echo hello; exec sleep 60 >/dev/null 2>&1"))
        handle = await start(runtime, service(launch))
        await heard(runtime.logs("svc"), "hello")
        shutil.rmtree(state_dir)
        (found,) = await reopen().handles()
        assert (found.ref, found.version) == (handle.ref, 0)

    async def test_processes_of_another_owner_are_left_alone(
        self, runtime: ProcessRuntime, tmp_path: Path
    ) -> None:
        await start(runtime, service(SLEEP))
        async with aclosing(ProcessRuntime(tmp_path / "other", "other", Background())) as other:
            assert list(await other.handles()) == []

    async def test_helpers_whose_leader_died_unseen_are_found_and_ended(
        self, runtime: ProcessRuntime, reopen: Reopen
    ) -> None:
        handle = await start(runtime, service(ProcessLaunch(fake_engine_command(Behaviour.CHILDREN))))
        await heard(runtime.logs("svc"), "listening")
        await runtime.aclose()
        os.kill(int(handle.ref), signal.SIGKILL)
        os.waitpid(int(handle.ref), 0)  # noqa: ASYNC222 - it is dead
        later = reopen()
        assert list(await later.handles()) == [handle]
        assert (await exit_of(later, handle)).code is None
        assert session.members(int(handle.ref)) == []
        assert list(await later.handles()) == []
