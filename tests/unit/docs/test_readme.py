"""What the READMEs show is true."""

import re
from pathlib import Path

import pytest

from ai_proxy.config.build import build_services
from ai_proxy.config.load import load_config

ROOT = Path(__file__).parents[3]
READMES = ("README.md", "README.ja.md")


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("name", READMES)
def test_the_minimal_configuration_loads(name: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(blocks(name, "yaml")[0])

    services = build_services(load_config(config, {}))

    assert [service.id for service in services] == ["llama3", "other"]


@pytest.mark.parametrize("name", READMES)
def test_every_link_leads_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")

    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", READMES)
def test_every_command_shown_is_one_the_program_has(name: str) -> None:
    from typer.main import get_command

    from ai_proxy.cli.main import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]

    shown = {
        word
        for block in blocks(name, "sh")
        for word in re.findall(r"^ai-proxy (\S+)", block, flags=re.MULTILINE)
    }

    assert shown
    assert shown <= known


def test_both_readmes_show_the_same_commands_and_configuration() -> None:
    english, japanese = (
        [re.sub(r"#.*|\"content\": \"[^\"]*\"|chat \"[^\"]*\"", "", b) for b in blocks(n, r"\w+")]
        for n in READMES
    )

    assert [re.sub(r"\s+", " ", b) for b in english] == [re.sub(r"\s+", " ", b) for b in japanese]
