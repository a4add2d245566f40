"""How a run of these tests goes about what it lacks, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import insist_in_ci

ROOT = Path(__file__).parents[2]

LONG = """
import os
import time
from pathlib import Path
import pytest

name = os.environ.get("PYTEST_XDIST_WORKER", "gw0")

@pytest.fixture(scope="session")
def engine():
    yield
    Path(f"{name}-ended").touch()

@pytest.mark.parametrize("number", range(2))
def test_long(engine, number):
    Path(f"{name}-begun").touch()
    time.sleep(600)
"""


@pytest.mark.parametrize(("ci", "outcome"), [("true", "failed"), ("", "skipped")])
def test_a_part_that_is_missing_fails_where_every_part_is(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str
) -> None:
    monkeypatch.setenv("CI", ci)
    report = pytest.CollectReport("tests/test_it.py", "skipped", ("test_it.py", 1, "no dockerd"), [])

    insist_in_ci(report)

    assert report.outcome == outcome
    assert "no dockerd" in str(report.longrepr)


@pytest.mark.thorough
@pytest.mark.parametrize(("processes", "engines"), [("0", ["gw0"]), ("2", ["gw0", "gw1"])])
def test_a_run_that_is_terminated_ends_what_it_has_started(
    tmp_path: Path, processes: str, engines: list[str]
) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_long.py").write_text(LONG)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", processes, "test_long.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    ) as run:
        while not all((tmp_path / f"{engine}-begun").exists() for engine in engines):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGTERM)

    assert run.returncode != 0
    assert all((tmp_path / f"{engine}-ended").exists() for engine in engines)
