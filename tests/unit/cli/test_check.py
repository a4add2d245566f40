import json
from pathlib import Path

import pytest
from tests.unit.cli.conftest import CommandLine


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory, of an ai-proxy whose port is free."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AI_PROXY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("AI_PROXY_DETECT", "0")
    monkeypatch.delenv("AI_PROXY_CONFIG", raising=False)
    (tmp_path / "config.yaml").write_text("server: {port: 0}")
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


@pytest.fixture
def base() -> Path:
    return Path("run")


async def test_each_finding_is_a_line_with_the_fix_and_a_problem_makes_exit_code_1(
    command: CommandLine, data: Path
) -> None:
    (data / "pepper").write_text("x")
    (data / "pepper").chmod(0o644)

    ran = await command("check")

    (line,) = [line for line in ran.out.splitlines() if line.startswith("problem")]
    assert ran.code == 1
    assert f"{data / 'pepper'} has mode 644" in line
    assert f"-> chmod 600 {data / 'pepper'}" in line
    assert ran.out.splitlines()[-1].startswith("1 problem")
    assert ran.err == ""


async def test_fix_puts_permissions_right(command: CommandLine, data: Path) -> None:
    (data / "pepper").write_text("x")
    (data / "pepper").chmod(0o644)

    ran = await command("check", "--fix", "--format", "json")

    assert ran.code == 0
    assert ran.data["fixed"] == [str(data / "pepper")]
    assert (data / "pepper").stat().st_mode & 0o777 == 0o600


async def test_all_being_well_is_exit_code_0(command: CommandLine, data: Path) -> None:
    ran = await command("check", "--format", "json")

    subjects = {finding["subject"] for finding in ran.data["findings"]}
    assert ran.code == 0
    assert ran.data["problems"] == 0
    assert subjects >= {"configuration", "data directory", "store", "API keys", "Docker", "memory", "clock"}
    assert json.loads(ran.out)["version"] == "1.0"


async def test_errors_of_the_configuration_are_findings_among_the_others(
    command: CommandLine, data: Path
) -> None:
    (data.parent / "config.yaml").write_text("server: {port: wrong}")

    ran = await command("check")

    assert ran.code == 1
    assert "config.yaml:1:16: server.port" in ran.out
    assert "\nok       memory" in ran.out
