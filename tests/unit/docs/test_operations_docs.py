"""What docs/operations.md says holds."""

import re
import shlex
from pathlib import Path

import pytest

from ai_proxy.cli.main import run
from ai_proxy.persistence.backup import SINGLE_FILES, TLS
from ai_proxy.persistence.database import FILE_NAME
from ai_proxy.persistence.file import KEPT, backups_folder

TEXT = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL) for line in block.splitlines()
]
COMMANDS = sorted(
    {
        part.strip()
        for line in LINES
        for part in line.split("#")[0].split("&&")
        if part.strip().startswith(("ai-proxy check", "ai-proxy --format", "ai-proxy backup"))
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]

    assert run([*words, "--help"]) == 0

    shown = capsys.readouterr().out
    assert all(word in shown for word in words if word.startswith("--") and word != "--format")


def test_every_file_that_lasts_is_named() -> None:
    names = (FILE_NAME, *SINGLE_FILES, f"{TLS}/", f"{backups_folder(Path('x') / FILE_NAME).name}/")

    assert [name for name in names if f"| `{name}`" not in TEXT] == []
    assert {5: "the last five copies"}[KEPT] in TEXT
