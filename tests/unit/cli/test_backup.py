import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_proxy.cli.main import run

type Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs commands in an empty folder, with a data directory in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AI_PROXY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("AI_PROXY_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("AI_PROXY_CONFIG", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pepper").write_text("secret")

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(words)
        return (code, *capsys.readouterr())

    return command


def test_a_backup_is_named_after_the_moment_and_says_what_is_in_it(command: Command, tmp_path: Path) -> None:
    code, out, err = command("backup", "create")

    (file,) = tmp_path.glob("ai-proxy-backup-*.tar.gz")
    assert (code, err) == (0, "")
    assert f"wrote {file.name}" in out
    assert "\n  pepper\n" in out
    assert "it holds secrets" in out
    assert "secret\n" not in out
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_backup_without_a_database_is_refused_where_there_is_to_be_one(
    command: Command, tmp_path: Path
) -> None:
    command("--format", "json", "backup", "create", "b.tar.gz")
    (tmp_path / "data" / "pepper").write_text("other")

    refused, _, err = command("--format", "json", "backup", "restore", "b.tar.gz")

    assert refused == 1
    assert json.loads(err)["error"]["code"] == "backup_failed"
    assert (tmp_path / "data" / "pepper").read_text() == "other"


def test_a_database_on_a_server_is_said_not_to_be_in_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URL", "postgresql://me:hunter2@db/proxy")
    (tmp_path / "config.yaml").write_text("store: {url: '${env:URL}'}")

    created = command("backup", "create", "b.tar.gz")
    (tmp_path / "data" / "pepper").write_text("other")
    refused = command("backup", "restore", "b.tar.gz")
    restored = command("--format", "json", "backup", "restore", "b.tar.gz", "--force")

    assert "which is in PostgreSQL; save it with pg_dump" in created[1]
    assert "hunter2" not in created[1]
    assert refused[0] == 1
    assert "--force" in refused[2]
    data = json.loads(restored[1])["data"]
    assert data["files"] == ["pepper"]
    assert (tmp_path / "data" / "pepper").read_text() == "secret"
    assert Path(data["aside"], "pepper").read_text() == "other"


def test_what_is_no_backup_is_told_in_a_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("not a backup")

    code, _, err = command("backup", "restore", "holiday.jpg")

    assert code == 1
    assert err.startswith("Error: holiday.jpg is not a sound backup of ai-proxy")
    assert err.count("\n") == 1


def test_the_commands_are_quick_to_explain_themselves(command: Command) -> None:
    for words in (("backup", "--help"), ("backup", "create", "--help"), ("check", "--help")):
        code, out, _ = command(*words)
        assert (code, out.startswith("Usage:")) == (0, True)
