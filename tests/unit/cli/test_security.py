import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Keeper, Ran

from ai_proxy.core.policy_document import POLICY_SCHEMA

JSON = ("--format", "json")


@pytest.fixture
def policy(keeper: Keeper, tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text("per_ip: {rpm: 1200}\nallowlist: [10.0.0.0/8]\n")
    return file


def test_what_is_shown_can_be_set(keeper: Keeper, policy: Path) -> None:
    assert keeper("security", "policy", "set", str(policy)).out == "policy 1 is in force\n"
    shown = keeper("security", "policy", "show")
    policy.write_text(shown.out)

    assert keeper("security", "policy", "set", str(policy), *JSON).data["number"] == 2

    assert keeper("security", "policy", "show").out == shown.out
    assert keeper("security", "policy", "show", *JSON).data["allowlist"] == ["10.0.0.0/8"]


def test_a_policy_may_come_as_json_from_standard_input(keeper: Keeper) -> None:
    assert typed('{"max_request_mb": 5}', "set", "-").code == 0

    assert keeper("security", "policy", "show", *JSON).data["max_request_mb"] == 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("allow: []", "allow: unknown; did you mean 'allowlist'?"),
        ("max_request_mb: 5\nallowlist: [a b", ":2: "),
        ("- 10.0.0.0/8", "not a policy; write a mapping"),
        ("allowlist: []\nallowlist: []", ":2: the key is given twice"),
        ("allowlist: [10.0.0.1/8]", "has host bits set"),
        ("cors: {origins: ['*'], credentials: true}", "cors.credentials: not with the origin *"),
    ],
)
def test_a_policy_with_errors_changes_nothing(keeper: Keeper, policy: Path, text: str, told: str) -> None:
    policy.write_text(text)

    ran = keeper("security", "policy", "set", str(policy), *JSON)

    assert (ran.code, ran.error["code"]) == (1, "invalid_policy")
    assert told in ran.error["message"]
    assert keeper("security", "policy", "history", *JSON).data == []


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_the_users_error(
    keeper: Keeper, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "other.yaml"
    if content is not None:
        file.write_bytes(content)

    ran = keeper("security", "policy", "set", str(file), *JSON)

    assert (ran.code, ran.error["code"]) == (1, "not_readable")


def test_who_set_which_policy_is_told(keeper: Keeper, policy: Path) -> None:
    assert "no policy is set" in keeper("security", "policy", "history").out
    keeper("security", "policy", "set", str(policy))

    assert keeper("security", "policy", "history").out.split()[0::3] == ["1", "owner"]
    (revision,) = keeper("security", "policy", "history", *JSON).data
    assert (revision["number"], revision["who"], revision["policy"]["per_ip"]) == (1, "owner", {"rpm": 1200})


def test_the_schema_is_that_by_which_policies_are_read(keeper: Keeper) -> None:
    assert json.loads(keeper("security", "policy", "schema").out) == POLICY_SCHEMA


@pytest.fixture
def edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an editor takes what it saves, one file after the other; without any, it saves nothing."""
    folder, script = tmp_path / "edits", tmp_path / "editor.py"
    folder.mkdir()
    script.write_text(
        "import pathlib, sys\n"
        f"edits = sorted(pathlib.Path({str(folder)!r}).iterdir())\n"
        "if edits:\n"
        "    pathlib.Path(sys.argv[1]).write_text(edits[0].read_text())\n"
        "    edits[0].unlink()\n"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    return folder


def left_over(keeper: Keeper) -> list[Path]:
    return list(keeper.data.glob("policy-*.yaml"))


def typed(text: str, *words: str) -> Ran:
    """Run a command in a process of its own, in which somebody types."""
    command = [sys.executable, "-m", "ai_proxy", "security", "policy", *words]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def test_what_is_saved_in_the_editor_is_in_force(keeper: Keeper, edits: Path) -> None:
    (edits / "1").write_text("max_request_mb: 7")

    assert keeper("security", "policy", "edit").out == "policy 1 is in force\n"

    assert keeper("security", "policy", "show", *JSON).data["max_request_mb"] == 7
    assert left_over(keeper) == []


def test_an_editor_that_saves_nothing_changes_nothing(keeper: Keeper, edits: Path) -> None:
    assert keeper("security", "policy", "edit").out == "nothing was changed\n"

    assert keeper.log() == []
    assert left_over(keeper) == []


def test_errors_are_shown_and_can_be_mended(keeper: Keeper, edits: Path) -> None:
    (edits / "1").write_text("max_request_mb: x")
    (edits / "2").write_text("max_request_mb: 7")

    ran = typed("y\n", "edit")

    assert (ran.code, ran.out) == (0, "policy 1 is in force\n")
    assert "max_request_mb: must be a whole number, not 'x'" in ran.err


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_what_was_written_is_not_lost_when_it_is_given_up(keeper: Keeper, edits: Path, answer: str) -> None:
    (edits / "1").write_text("max_request_mb: x")

    ran = typed(answer, "edit")

    (file,) = left_over(keeper)
    assert (ran.code, file.read_text()) == (1, "max_request_mb: x")
    assert str(file) in ran.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_somebody_else_set_meanwhile_is_not_undone(
    keeper: Keeper, policy: Path, tmp_path: Path, edits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "slow_editor.py"
    script.write_text(
        "import pathlib, subprocess, sys\n"
        f"command = [sys.executable, '-m', 'ai_proxy', 'security', 'policy', 'set', {str(policy)!r}]\n"
        "subprocess.run(command, check=True, capture_output=True)\n"
        "pathlib.Path(sys.argv[1]).write_text('max_request_mb: 7')\n"
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")

    ran = keeper("security", "policy", "edit", *JSON)

    assert (ran.code, ran.error["code"]) == (1, "conflict")
    assert [file.read_text() for file in left_over(keeper)] == ["max_request_mb: 7"]
    assert keeper("security", "policy", "show", *JSON).data["per_ip"] == {"rpm": 1200}


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-editor", "no_editor"), (f"{sys.executable} -c exit(3)", "editor_failed")]
)
def test_an_editor_that_fails_is_told(
    keeper: Keeper, edits: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: str
) -> None:
    monkeypatch.setenv("EDITOR", command)

    ran = keeper("security", "policy", "edit", *JSON)

    assert (ran.code, ran.error["code"]) == (1, code)


def test_every_change_is_in_the_log(keeper: Keeper, policy: Path) -> None:
    keeper("security", "policy", "set", str(policy))
    policy.write_text("x: 1")
    keeper("security", "policy", "set", str(policy))

    assert keeper.log() == [("policy.set", "ok"), ("policy.set", "invalid_policy")]
