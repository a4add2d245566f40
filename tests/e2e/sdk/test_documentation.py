"""What docs/clients.md shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.sdk.conftest import House
from typer.main import get_command

from ai_proxy.api.ollama import VERSION
from ai_proxy.cli.main import app
from ai_proxy.data import DEMO_SENTENCE

pytestmark = pytest.mark.xdist_group("sdk")  # one proxy serves them all

PAGE = (Path(__file__).parents[3] / "docs" / "clients.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("program", blocks("python"))
def test_every_program_prints_the_answer(program: str, house: House) -> None:
    here = {"http://127.0.0.1:11000": house.url, "http://127.0.0.1:11434": house.ollama, '"llama3"': '"tiny"'}
    for shown, real in here.items():
        program = program.replace(shown, real)

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert (ran.stdout.strip(), ran.stderr) == (DEMO_SENTENCE, "")


def test_every_command_is_one_that_the_program_has() -> None:
    known = set(get_command(app).commands)  # type: ignore[attr-defined]

    shown = set(re.findall(r"(?:^|\| )ai-proxy (\S+)", "\n".join(blocks("sh")), flags=re.MULTILINE))

    assert {"chat", "models"} <= shown <= known


def test_the_version_of_ollama_is_the_one_that_is_told() -> None:
    assert f"`/api/version` returns {VERSION}" in PAGE
