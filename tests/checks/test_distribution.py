"""The wheel and the sdist: what people install, as they install it."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def run(*command: str | Path, **environment: str) -> str:
    """Run a program and return what it printed."""
    active = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PYTHON", "UV_SYSTEM_PYTHON", "CONDA_PREFIX")
    inherited = {name: value for name, value in os.environ.items() if name not in active}
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ended.returncode:
        pytest.fail(f"{command}\n{ended.stdout}", pytrace=False)
    return ended.stdout


@dataclass(frozen=True, slots=True)
class Distributions:
    """What was built.

    Attributes:
        wheel: The path of the wheel.
        sdist: The path of the sdist.
        constraints: A file with the versions of requirements.lock, so that installing asks for those.
    """

    wheel: Path
    sdist: Path
    constraints: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Build the sdist, and the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    constraints = folder / "constraints.txt"
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    constraints.write_text("\n".join(re.findall(r"^(\w\S*==[^\\\n]*)", lock, re.MULTILINE)))
    run("uv", "build", "--quiet", "--python", sys.executable, "--build-constraint", constraints, "-o", folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Distributions(wheel, sdist, constraints)


def with_pip(built: Distributions, folder: Path) -> tuple[Path, str]:
    """Install, and return the folder of the programs and how the program says that an extra is added."""
    venv.create(folder / "env", with_pip=True)
    run(
        folder / "env/bin/pip",
        "install",
        "--quiet",
        "--no-compile",
        "--constraint",
        built.constraints,
        built.wheel,
    )
    return folder / "env/bin", f"{folder}/env/bin/python -m pip install '{built.wheel}[otel]'"


def with_pipx(built: Distributions, folder: Path) -> tuple[Path, str]:
    settings = {"PIPX_HOME": str(folder), "PIPX_BIN_DIR": str(folder / "bin")}
    settings["PIPX_MAN_DIR"] = str(folder / "man")
    options = ("--python", sys.executable, f"--pip-args=--constraint={built.constraints}")
    run(sys.executable, "-m", "pipx", "install", *options, built.sdist, **settings)
    return folder / "bin", f"pipx install --force '{built.sdist}[otel]'"


def with_uv_tool(built: Distributions, folder: Path) -> tuple[Path, str]:
    settings = {"UV_TOOL_DIR": str(folder), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    options = ("--python", sys.executable, "--constraints", built.constraints)
    run("uv", "tool", "install", *options, built.wheel, **settings)
    return folder / "bin", f"uv tool install --force '{built.wheel}[otel]'"


@pytest.mark.thorough
@pytest.mark.xdist_group("distribution")
@pytest.mark.parametrize("install", [with_pip, with_pipx, with_uv_tool])
def test_what_is_built_installs_and_runs(
    install: Callable[[Distributions, Path], tuple[Path, str]], built: Distributions, tmp_path: Path
) -> None:
    programs, to_extend = install(built, tmp_path)

    assert run(programs / "ai-proxy", "--version").split() == ["ai-proxy", VERSION]
    assert "llama-cpp-server" in run(programs / "flm", "config", "types")
    python = (programs / "ai-proxy").resolve().parent / "python"
    ask = "from ai_proxy.platform.extras import how_to_install as how; print(how('otel'))"
    assert run(python, "-c", ask).strip() == to_extend


@pytest.mark.thorough
@pytest.mark.xdist_group("distribution")
def test_both_hold_what_belongs_to_them_and_nothing_else(built: Distributions) -> None:
    with zipfile.ZipFile(built.wheel) as wheel, tarfile.open(built.sdist) as sdist:
        in_wheel = set(wheel.namelist())
        in_sdist = {name.partition("/")[2] for name in sdist.getnames()}

    assert {"ai_proxy/py.typed", "ai_proxy/data/recite.gguf"} <= in_wheel
    assert {name.partition("/")[0] for name in in_wheel} == {
        "ai_proxy",
        f"ai_inference_proxy-{VERSION}.dist-info",
    }
    tracked = set(run("git", "ls-files").splitlines()) if (ROOT / ".git").exists() else in_sdist
    assert in_sdist - tracked <= {"PKG-INFO"}
    assert {"requirements.lock", "requirements-uv.lock", "scripts/demo", "LICENSE"} <= in_sdist


def test_the_notes_of_this_version_are_in_the_changelog() -> None:
    assert run(sys.executable, "scripts/release_notes", VERSION).strip()


def test_a_release_that_is_not_ready_is_told_what_lacks() -> None:
    command = [sys.executable, "scripts/release_notes", "99.0.0", "--repository", "https://example.com/other"]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert ended.returncode == 1
    assert f"pyproject.toml has the version {VERSION}, not 99.0.0" in ended.stderr
    assert "CHANGELOG.md has no section '## 99.0.0'" in ended.stderr
    assert "Source in [project.urls] of pyproject.toml is not in https://example.com/other" in ended.stderr


def test_every_way_to_install_is_shown() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").partition("## Install")[2].partition("\n## ")[0]

    assert [way for way in ("-m venv", "pipx install", "uv tool install") if way not in readme] == []
    assert "ai-inference-proxy" in readme
