import json
import signal
from pathlib import Path

import pytest
from tests.rigs.plane import FakePlane
from tests.unit.cli.conftest import CommandLine, running

from ai_proxy.control.views import ReloadReport
from ai_proxy.core.errors import InvalidConfigError, RuntimeFailureError, ServiceFailedError
from ai_proxy.core.lifecycle import Event, State


@pytest.mark.parametrize("words", [("ps",), ("start", "llama3"), ("logs", "llama3"), ("config", "reload")])
async def test_without_a_running_server_the_user_is_told_how_to_start_one(
    command: CommandLine, words: tuple[str, ...]
) -> None:
    ran = await command(*words)

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: no ai-proxy is running; start one with 'ai-proxy serve'\n"


async def test_ps_shows_every_service(command: CommandLine, plane: FakePlane) -> None:
    plane.set("llama3", Event.EXITED, state=State.FAILED, failure="killed by signal 9 (out of memory?)")

    ran = await command("ps")

    assert ran.code == 0
    header, first, second = ran.out.splitlines()
    assert header.split()[:4] == ["SERVICE", "STATE", "ENGINE", "RUNTIME"]
    assert first.split()[:2] == ["llama3", "failed"]
    assert first.rstrip().endswith("killed by signal 9 (out of memory?)")
    assert second.split()[:2] == ["coder", "ready"]
    assert "http://127.0.0.1:9" in second


@pytest.mark.threat("a backend", "control of an operator's terminal")
async def test_backend_output_cannot_control_the_terminal(command: CommandLine, plane: FakePlane) -> None:
    plane.set("llama3", Event.EXITED, state=State.FAILED, failure="\x1b[2J[bold]it")

    ran = await command("ps")

    assert r"\x1b[2J[bold]it" in ran.out


@pytest.mark.parametrize("words", [("ps", "--format", "json"), ("--format", "json", "ps")])
async def test_ps_for_scripts_has_every_fact(
    command: CommandLine, plane: FakePlane, words: tuple[str, ...]
) -> None:
    ran = await command(*words)

    assert [(one["id"], one["in_flight"]) for one in ran.data] == [("llama3", 0), ("coder", 0)]


@pytest.mark.parametrize(
    ("words", "said", "state"),
    [
        (("start", "llama3"), "Container 'llama3' started", State.READY),
        (("start", "llama3", "--no-wait"), "Container 'llama3' starting", State.STARTING),
        (("start", "coder"), "Container 'coder' is already running", State.READY),
        (("stop", "coder"), "Container 'coder' stopped", State.STOPPED),
        (("stop", "llama3"), "Container 'llama3' stopped", State.STOPPED),
        (("restart", "coder"), "Container 'coder' restarted", State.READY),
        (("unload", "coder"), "Container 'coder' unloaded", State.STOPPED),
        (("unload", "coder", "--no-wait"), "Container 'coder' unloading", State.DRAINING),
    ],
)
async def test_services_are_started_and_stopped(
    command: CommandLine, plane: FakePlane, words: tuple[str, ...], said: str, state: State
) -> None:
    ran = await command(*words)

    assert (ran.code, ran.out) == (0, f"{said}\n")
    assert plane.service(words[1]).state is state


async def test_start_for_scripts(command: CommandLine, plane: FakePlane) -> None:
    ran = await command("start", "llama3", "--format", "json")

    assert ran.data == {"message": "Container 'llama3' started"}


async def test_start_that_takes_its_time_tells_how_it_goes_on_standard_error(
    base: Path, plane: FakePlane
) -> None:
    plane.ready.clear()
    async with running("start", "llama3", "--run-dir", str(base)) as start:
        assert await start.stderr.readline() == b"llama3 is starting: not asked for yet\n"
        plane.set("llama3", Event.LAUNCHED, state=State.LOADING, reason="loading model")
        assert await start.stderr.readline() == b"llama3 is loading: loading model\n"
        plane.ready.set()

        assert await start.stdout.read() == b"Container 'llama3' started\n"
        assert await start.process.wait() == 0


async def test_unknown_service_shows_near_names(command: CommandLine, plane: FakePlane) -> None:
    ran = await command("start", "lama3")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: no service 'lama3' is configured; did you mean 'llama3'?\n"


async def test_error_for_scripts_has_a_code(command: CommandLine, plane: FakePlane) -> None:
    ran = await command("stop", "lama3", "--format", "json")

    assert (ran.code, ran.out) == (1, "")
    assert ran.error["code"] == "unknown_service"
    assert "llama3" in ran.error["message"]


async def test_failed_start_shows_the_last_log_lines(command: CommandLine, plane: FakePlane) -> None:
    plane.start_error = ServiceFailedError("llama3 exited with 1", log_tail=("loading", "out of memory"))

    ran = await command("start", "llama3")

    assert ran.code == 1
    told = [line for line in ran.err.splitlines() if not line.startswith("llama3 is ")]  # progress, if slow
    assert told == ["Error: llama3 exited with 1", "  | loading", "  | out of memory"]


async def test_logs_are_printed_as_they_are(command: CommandLine, plane: FakePlane) -> None:
    for text in ("one", "[bold]two[/bold]", "three"):
        plane.logs("llama3").append(text, at=0.0)

    assert (await command("logs", "llama3", "--tail", "2")).out == "[bold]two[/bold]\nthree\n"
    assert (await command("logs", "llama3", "--format", "json")).data[0] == {
        "seq": 1,
        "at": 0.0,
        "text": "one",
    }


@pytest.mark.usefixtures("interruptible")
async def test_logs_are_followed_until_ctrl_c(base: Path, plane: FakePlane) -> None:
    plane.logs("llama3").append("before", at=0.0)
    async with running("logs", "llama3", "--follow", "--run-dir", str(base)) as logs:
        assert await logs.stdout.readline() == b"before\n"
        plane.logs("llama3").append("after", at=0.0)
        assert await logs.stdout.readline() == b"after\n"
        logs.process.send_signal(signal.SIGINT)

        assert await logs.stdout.read() == b""
        assert await logs.stderr.read() == b""
        assert await logs.process.wait() == 130


async def test_following_logs_for_scripts_prints_an_object_per_line(base: Path, plane: FakePlane) -> None:
    plane.logs("llama3").append("before", at=0.0)

    async with running("--format", "json", "logs", "llama3", "-f", "--run-dir", str(base)) as logs:
        line = json.loads(await logs.stdout.readline())

    assert line == {"seq": 1, "at": 0.0, "text": "before"}


async def test_reload_tells_what_changed(command: CommandLine, plane: FakePlane) -> None:
    plane.reload_result = ReloadReport(added=("new",), restarted=("coder",), unchanged=("llama3",))

    assert (await command("config", "reload")).out == "added: new\nrestarted: coder\n"
    assert (await command("config", "reload", "--format", "json")).data["changed"] == ["coder"]


async def test_reload_of_a_bad_configuration_shows_every_line(command: CommandLine, plane: FakePlane) -> None:
    plane.reload_result = InvalidConfigError("config.yaml:1:1: bad\nconfig.yaml:2:1: worse")

    ran = await command("config", "reload")

    assert (ran.code, ran.err) == (1, "Error: config.yaml:1:1: bad\nconfig.yaml:2:1: worse\n")


async def test_unexpected_error_of_the_server_is_internal(command: CommandLine, plane: FakePlane) -> None:
    plane.reload_result = RuntimeError("a defect")

    ran = await command("config", "reload", "--format", "json")

    assert (ran.code, ran.error["code"]) == (2, "internal")


async def test_backend_that_cannot_be_run_is_for_the_user_to_put_right(
    command: CommandLine, plane: FakePlane
) -> None:
    plane.start_error = RuntimeFailureError("there is no program 'llama-server'; install it")

    ran = await command("start", "llama3")

    told = [line for line in ran.err.splitlines() if not line.startswith("llama3 is ")]  # progress, if slow
    assert (ran.code, told) == (1, ["Error: there is no program 'llama-server'; install it"])
