"""The program under the other versions of Python that this machine has."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUPPORTED = ("3.12", "3.13", "3.14")
HOMES = (
    ("/usr", ""),
    ("/usr/local", ""),
    ("~/.pyenv/versions", "{0}.*/"),
    ("~/.local/share/uv/python", "cpython-{0}.*/"),
    (str(Path(sys.base_prefix).parent), "{0}.*/"),
)
"""Where versions of Python are installed, and in which folders there; beside this one, whatever HOME is."""

TESTS = ("tests/unit/core", "tests/unit/config")
"""Those that take seconds; the imports of the program's commands reach the rest."""


def others() -> Iterator[tuple[str, Path]]:
    """Yield each supported version that is here, except the one that runs this, with its path."""
    for version in SUPPORTED:
        found = (p for home, folders in HOMES for p in find(home, folders.format(version), version))
        path = next(found, None)
        if path and version != f"{sys.version_info.major}.{sys.version_info.minor}":
            yield version, path


def find(home: str, folders: str, version: str) -> list[Path]:
    """Return the interpreters of a version in a folder."""
    return sorted(Path(home).expanduser().glob(f"{folders}bin/python{version}"))


def run(*command: str | Path, path: str = "") -> str:
    """Run a program in the checkout and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PATH"] = f"{path}:{environment['PATH']}"
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if ended.returncode:
        pytest.fail(f"{command}\n{ended.stdout[-8000:]}", pytrace=False)
    return ended.stdout


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_what_decides_passes_its_tests_under_every_other_python_that_is_here(tmp_path: Path) -> None:
    for version, python in others():
        passes_its_tests(version, python, tmp_path / version)


def passes_its_tests(version: str, python: Path, environment: Path) -> None:
    """Install the program into an environment of that version, run the tests there and a command."""
    there = environment / "bin" / "python"
    run("uv", "venv", "--quiet", "--python", python, environment)
    run("uv", "pip", "sync", "--quiet", "--python", there, "requirements.lock")
    run("uv", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--python", there, "-e", ".")

    tested = run(
        *(there, "-m", "pytest", *TESTS, "-q", "-x", "-m", "not slow and not thorough"),
        *("-p", "no:cacheprovider", "--hypothesis-profile=brief"),
        path=str(there.parent),
    )

    assert " passed" in tested
    assert "llama-cpp-server" in run(there.parent / "ai-proxy", "config", "types")
    assert run(there, "--version").startswith(f"Python {version}.")
