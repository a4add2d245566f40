"""`ai-proxy config ...`, as people run it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ai_proxy.cli.main import run

GOOD = 'services:\n  a:\n    type: openai\n    url: http://h\n    api_key: "${env:KEY}"\n'
BAD = "services:\n  a: {type: opnai}\nserver: {port: x}\n"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        envelope = json.loads(self.out)
        assert envelope["version"] == "1.0"
        return envelope["data"]

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


type Command = Callable[..., Ran]


@pytest.fixture
def config(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Ran]:
    """Runs `ai-proxy config` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("KEY", "verysecret")
    monkeypatch.delenv("AI_PROXY_CONFIG", raising=False)

    def command(*args: str) -> Ran:
        code = run(["config", *args])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return command


def test_check_says_that_a_file_is_ok(config: Command) -> None:
    Path("config.yaml").write_text(GOOD, encoding="utf-8")

    assert config("check") == Ran(0, "config.yaml: ok, 1 service\n", "")
    assert config("check", "--format", "json").data == {
        "file": "config.yaml",
        "services": ["a"],
        "warnings": [],
    }


def test_check_warns_of_a_model_and_a_program_that_are_not_here(config: Command) -> None:
    text = """
services:
  a: {type: llama-cpp-server, command: [no-such-program, -m, /no/such/model.gguf, --port, "${port}"]}
"""
    Path("config.yaml").write_text(text, encoding="utf-8")

    ran = config("check")

    assert ran.code == 0
    assert "warning: a: no-such-program is not on PATH; install it" in ran.err
    assert "warning: a: there is no model file /no/such/model.gguf; put the file there" in ran.err


def test_check_reports_every_problem_on_stderr_and_exits_with_1(config: Command) -> None:
    Path("other.yaml").write_text(BAD, encoding="utf-8")

    ran = config("check", "--config", "other.yaml")

    assert (ran.code, ran.out) == (1, "")
    assert [line.split(" ")[0] for line in ran.err.splitlines()] == ["other.yaml:2:13:", "other.yaml:3:16:"]


def test_check_reports_problems_as_data(config: Command) -> None:
    Path("config.yaml").write_text(BAD, encoding="utf-8")

    ran = config("check", "--format", "json")

    assert (ran.code, ran.out, ran.error["code"]) == (1, "", "invalid_config")
    assert [problem["path"] for problem in ran.error["problems"]] == ["services.a.type", "server.port"]


def test_check_without_a_file_is_fine(config: Command) -> None:
    assert config("check").code == 0


def test_show_prints_what_holds_without_secrets(config: Command) -> None:
    Path("config.yaml").write_text(GOOD, encoding="utf-8")

    text, as_json = config("show"), config("show", "--format", "json")

    assert "verysecret" not in text.out + as_json.out
    assert "api_key: ${env:KEY}" in text.out
    assert as_json.data["services"]["a"]["start_timeout"] == "10s"


def test_schema_prints_the_schema(config: Command) -> None:
    assert json.loads(config("schema").out)["title"] == "ai-proxy configuration"


def test_types_lists_own_types_too(config: Command) -> None:
    Path("config.yaml").write_text("types: {mine: {extends: vllm, description: my own}}", encoding="utf-8")

    assert "mine              my own\n" in config("types").out
    names = [entry["name"] for entry in config("types", "--format", "json").data]
    assert (names[0], names[-1]) == ("llama-cpp-server", "mine")


def test_init_writes_a_file_that_passes_the_check(config: Command) -> None:
    assert config("init").code == 0
    assert config("check") == Ran(0, "config.yaml: ok, 0 services\n", "")


def test_init_leaves_an_existing_file_alone(config: Command) -> None:
    Path("config.yaml").write_text(GOOD, encoding="utf-8")

    ran = config("init")

    assert (ran.code, Path("config.yaml").read_text(encoding="utf-8")) == (1, GOOD)
    assert "already exists" in ran.err


def test_init_says_when_it_cannot_write(config: Command) -> None:
    ran = config("init", "no/such/folder.yaml", "--format", "json")

    assert (ran.code, ran.error["code"]) == (1, "not_writable")
