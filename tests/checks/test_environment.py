"""The virtual environment that the scripts make, and that they write nowhere else."""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILDS = ("editables", "hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers")
"""What it takes to install a project from its folder: all that the small lock holds."""

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "small"
version = "1"
scripts.ai-proxy = "small:main"

[tool.hatch.build.targets.wheel]
packages = ["src/small"]
"""
TELL = "import sys\ndef main(): print('runs in', sys.prefix)\n"

SCRIPTS = {
    "demo": ["--once"],
    "test": ["--fast"],
    "bench": ["--help"],
    "soak": ["1"],
    "test_vllm": [],
}
"""The scripts that make the environment, with arguments that ask nothing else of the system."""

CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("UV_", "VIRTUAL_ENV", "CONDA_", "PYTHON", "PYTEST_"))
}


@dataclass(frozen=True, slots=True)
class Foreign:
    """An environment that belongs to somebody else, with a package in it, and what points to it."""

    folder: Path
    python: Path = field(init=False)

    def __post_init__(self) -> None:
        venv.create(self.folder, with_pip=False)
        object.__setattr__(self, "python", self.folder / "bin" / "python3")
        (self.folder / "conda-meta").mkdir()
        (packages,) = self.folder.glob("lib/python*/site-packages")
        (packages / "flask.py").touch()
        metadata = packages / "flask-3.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: flask\nVersion: 3.0\n")
        (metadata / "INSTALLER").write_text("pip\n")
        (metadata / "RECORD").write_text("flask.py,,\nflask-3.0.dist-info/METADATA,,\n")

    def content(self) -> dict[str, int]:
        """Return its files and when each was written; byte code that Python keeps is left out."""
        files = (file for file in self.folder.rglob("*") if "__pycache__" not in file.parts)
        return {str(file.relative_to(self.folder)): file.lstat().st_mtime_ns for file in files}


def program(path: Path, text: str) -> None:
    """Write a program of the shell."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def active(foreign: Foreign, bin_: Path) -> dict[str, str]:
    """Return the variables of an environment that is active."""
    return {"VIRTUAL_ENV": str(foreign.folder), "PATH": f"{foreign.folder}/bin:{CLEAN['PATH']}"}


def conda(foreign: Foreign, bin_: Path) -> dict[str, str]:
    return {"CONDA_PREFIX": str(foreign.folder), "CONDA_DEFAULT_ENV": "work"}


def system(foreign: Foreign, bin_: Path) -> dict[str, str]:
    return {"UV_SYSTEM_PYTHON": "1", "PATH": f"{foreign.folder}/bin:{CLEAN['PATH']}"}


def named(foreign: Foreign, bin_: Path) -> dict[str, str]:
    return {"UV_PYTHON": str(foreign.python)}


def parent(foreign: Foreign, bin_: Path) -> dict[str, str]:
    """Have no uv but that of a foreign environment: it installs there unless told otherwise."""
    (packages,) = foreign.folder.glob("lib/python*/site-packages")
    ours = Path(sys.prefix)
    (package,) = ours.glob("lib/python*/site-packages/uv")
    (packages / "uv").symlink_to(package)
    (foreign.folder / "bin" / "uv").symlink_to(ours / "bin" / "uv")
    program(bin_ / "uv", "exit 127")
    program(bin_ / "python3", f'exec {foreign.python} "$@"')
    return {"PATH": f"{bin_}:{CLEAN['PATH']}"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout with the real scripts, and a program and a lock that are small."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    for name in ("requirements-uv.lock", ".python-version"):
        shutil.copy(ROOT / name, folder)
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    entries = re.findall(r"^\w\S*==(?:.*\\\n)+.*\n", lock, re.MULTILINE)
    (folder / "requirements.lock").write_text("".join(e for e in entries if e.split("==")[0] in BUILDS))
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "src" / "small").mkdir(parents=True)
    (folder / "src" / "small" / "__init__.py").write_text(TELL)
    (folder / "benchmarks").mkdir()
    for name in ("pytest.py", "benchmarks/__main__.py", "benchmarks/soak.py"):
        (folder / name).write_text(f"{TELL}main()\n")
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize("points_to_it", [active, conda, system, named, parent])
@pytest.mark.parametrize("script", SCRIPTS)
def test_only_the_environment_of_the_checkout_is_written_to(
    script: str,
    points_to_it: Callable[[Foreign, Path], dict[str, str]],
    checkout: Path,
    tmp_path: Path,
) -> None:
    foreign = Foreign(tmp_path / "foreign")
    variables = points_to_it(foreign, tmp_path / "bin")
    version = re.findall(r"^VERSION=(.*)", (ROOT / "scripts" / "test_vllm").read_text(), re.MULTILINE)[0]
    vllm = tmp_path / "cache" / "ai-proxy" / "vllm" / version
    vllm.mkdir(parents=True)
    (vllm / "complete").touch()
    before = foreign.content()

    ended = subprocess.run(
        [checkout / "scripts" / script, *SCRIPTS[script]],
        env={**CLEAN, "XDG_CACHE_HOME": str(tmp_path / "cache"), "UV_CACHE_DIR": uv_cache(), **variables},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == f"runs in {checkout}/.venv"
    assert foreign.content() == before


def uv_cache() -> str:
    """Return where uv keeps what it has fetched."""
    return subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()


def sourced(checkout: Path, script: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run lines of a script with the programs of one folder alone, as on a machine with nothing else."""
    return subprocess.run(
        [shutil.which("bash") or "bash", "-ec", f"source scripts/environment.sh; {script}"],
        cwd=checkout,
        env={**CLEAN, "PATH": str(path), "HOME": str(checkout), "UV_CACHE_DIR": uv_cache()},
        capture_output=True,
        text=True,
    )


def test_a_bare_machine_is_told_one_command_for_all_that_is_missing(checkout: Path, tmp_path: Path) -> None:
    for name in ("dirname", "cat", "rm", "mktemp"):
        program(tmp_path / "bin" / name, f'exec {shutil.which(name)} "$@"')
    program(tmp_path / "bin" / "ldconfig", "echo libc.so.6")

    ended = sourced(
        checkout, "want_llamacpp; want no-such-program its-package; need_environment", tmp_path / "bin"
    )

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].strip() == "sudo apt-get install libgomp1 its-package python3-venv"
    assert not (checkout / ".venv").exists()


@pytest.mark.thorough
def test_a_machine_with_python_alone_gets_uv_within_the_checkout(checkout: Path, tmp_path: Path) -> None:
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    for name in ("dirname", "cat", "rm", "mktemp", "cp", "cmp", "env"):
        program(tmp_path / "bin" / name, f'exec {shutil.which(name)} "$@"')
    program(tmp_path / "bin" / "python3", f'case "$*" in "-m uv"*) exit 1 ;; *) exec {base} "$@" ;; esac')
    # What is pinned is not here; any that is new enough will do.
    (checkout / ".python-version").write_text("3.99\n")
    lines = 'need_environment; echo "$(uv --version) $(type -P python)"'

    ended = sourced(checkout, lines, tmp_path / "bin")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("uv ")
    assert ended.stdout.strip().endswith(f"{checkout}/.venv/bin/python")
    assert (checkout / ".venv" / "uv" / "bin" / "uv").exists()


def test_nothing_breaks_the_packages_of_the_system() -> None:
    scripts = [file for file in (ROOT / "scripts").iterdir() if file.is_file()]

    assert [file.name for file in scripts if "--break-system-packages" in file.read_text("utf-8")] == []
