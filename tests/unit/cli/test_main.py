import subprocess
import sys
from pathlib import Path

import pytest

from ai_proxy.cli.main import run
from ai_proxy.cli.output import UserError, explain
from ai_proxy.core.errors import InvalidConfigError, ProxyError


def command_line(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ai_proxy.cli.main", *words], capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    "words", [["--help"], ["serve", "--help"], ["config", "--help"], ["start", "--help"]]
)
def test_help_goes_to_standard_output(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    assert "Usage: ai-proxy" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])

    words = capsys.readouterr().out.split()
    assert {"serve", "ps", "start", "stop", "restart", "unload", "logs", "config", "demo"} <= set(words)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ai-proxy ")


@pytest.mark.parametrize(
    "words", [["nonsense"], ["ps", "--nonsense"], ["start"], ["serve", "--port", "70000"]]
)
def test_wrong_usage_is_the_users_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 1
    assert capsys.readouterr().err.startswith("Error: ")


def test_help_needs_no_heavy_imports() -> None:
    heavy = ("asyncio", "aiohttp", "fastapi", "pydantic", "uvicorn", "rich", "loguru", "ruamel", "xllamacpp")
    code = (
        "import sys; from ai_proxy.cli.main import run; run(['--help']);"
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr


def test_program_runs_as_a_process_and_returns_its_exit_code(tmp_path: Path) -> None:
    ran = command_line("ps", "--run-dir", str(tmp_path), "--format", "json")

    assert (ran.returncode, ran.stdout) == (1, "")
    assert '"not_running"' in ran.stderr


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (UserError("x", "mine"), 1, "mine"),
        (UserError("x", "internal"), 2, "internal"),
        (InvalidConfigError("config.yaml:1:1: x"), 1, "invalid_config"),
        (ProxyError("x"), 2, "internal"),
        (RuntimeError("x"), 2, "internal"),
    ],
)
def test_exit_code_tells_the_users_errors_from_ours(error: Exception, exit_code: int, code: str) -> None:
    assert explain(error)[:2] == (exit_code, code)
