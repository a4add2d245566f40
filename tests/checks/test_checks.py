"""What is checked without running the program; these run beside the tests, the longest first."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("mypy", id="types", marks=pytest.mark.thorough),
        pytest.param("lint-imports", id="architecture"),
        pytest.param("python scripts/generate --check", id="generated files"),
        pytest.param("ruff check", id="lint"),
        pytest.param("ruff format --check --diff", id="format"),
        pytest.param("python scripts/lock --check", id="lock"),
        pytest.param(
            "check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/release.yml",
            id="workflow",
        ),
    ],
)
def test_nothing_is_found_by(command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command.split(),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    if done.returncode:
        pytest.fail(f"{command}\n{done.stdout}", pytrace=False)
