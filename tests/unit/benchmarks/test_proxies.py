import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from benchmarks.main import main
from benchmarks.processes import running
from benchmarks.proxies import CONTENDERS, DEFAULT, Recipe, Setting, environment


def test_the_default_contenders_are_among_those_that_are_known() -> None:
    assert set(DEFAULT) <= {contender.name for contender in CONTENDERS}


def test_a_contender_sees_nothing_of_the_users_environment_but_the_path(tmp_path: Path) -> None:
    env = environment(Setting(1, 2, tmp_path), Recipe(("true",), "1", {"OWN": "yes"}))
    assert env.pop("OWN") == "yes"
    assert env.pop("PATH")
    assert set(env.values()) == {str(tmp_path)}


@pytest.mark.skipif(sys.platform != "linux", reason="pins processes to cores")
def test_a_process_and_its_children_have_ended_when_left_behind(tmp_path: Path) -> None:
    pipe = tmp_path / "held open by parent and child"
    os.mkfifo(pipe)
    core = min(os.sched_getaffinity(0))
    script = 'exec > "$0"; sleep 1000 & echo begun; wait'
    with ExitStack() as stack:
        with running(["bash", "-c", script, str(pipe)], core, tmp_path / "log") as process:
            reader = stack.enter_context(pipe.open())
            begun = reader.readline()
        rest = reader.read()
    assert (begun, rest) == ("begun\n", "")
    assert process.returncode == -signal.SIGTERM


def test_an_unknown_contender_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "ngnix"])
    assert ended.value.code == 2
    assert "no contender is called 'ngnix'; there are ai-proxy, nginx" in capsys.readouterr().err


def test_help_names_the_ways_to_run_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], capture_output=True, text=True, check=True
    )
    assert all(option in done.stdout for option in ("--quick", "--all", "--only", "--json", "--write"))
