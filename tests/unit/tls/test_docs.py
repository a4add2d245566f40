"""What docs/tls.md says holds."""

import re
from pathlib import Path

import pytest
import typer.testing

from ai_proxy.cli.main import app
from ai_proxy.config.build import tls_settings
from ai_proxy.config.load import load_config
from ai_proxy.core.settings import TlsMode
from ai_proxy.tls.errors import CertificateError
from ai_proxy.tls.serve import RedirectError
from ai_proxy.tls.trust import TrustError

DOCS = Path(__file__).parents[3] / "docs" / "tls.md"
TEXT = DOCS.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_configuration_shown_loads(block: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(block)
    for name in ("fullchain.pem", "privkey.pem"):
        (tmp_path / name).touch()

    assert tls_settings(load_config(config, {})).mode is not TlsMode.OFF


def test_every_mode_is_explained() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", TEXT.partition("## ")[0], re.MULTILINE)

    assert rows == list(TlsMode)


def test_every_option_of_the_authority_shown_loads(tmp_path: Path) -> None:
    table = TEXT.partition("| purpose | setting |")[2].partition("\n\n")[0]
    (tmp_path / "root-ca.pem").touch()
    options = [option for option in re.findall(r"`(.*?)`", table) if not option.startswith("staging")]
    lines = "".join(f"    {option}\n" for option in options)
    config = tmp_path / "config.yaml"
    config.write_text(f"tls:\n  mode: https-acme\n  acme:\n    domains: [a.example]\n{lines}")

    assert len(options) == 4
    assert tls_settings(load_config(config, {"EAB_KEY": "k"})).acme.eab_kid == "kid-1"


@pytest.mark.parametrize(
    "command", [line.partition("#")[0] for block in blocks("sh") for line in block.splitlines()]
)
def test_every_command_shown_is_one(command: str) -> None:
    words = command.split()[1:]

    result = typer.testing.CliRunner().invoke(app, [*words, "--help"])

    assert result.exit_code == 0
    assert all(word in result.output for word in words if word.startswith("--"))


def test_every_error_is_explained() -> None:
    explained = re.findall(r"^\| `([a-z_]+)` \|", TEXT.partition("## When something")[2], re.MULTILINE)
    kinds: list[type[CertificateError]] = [CertificateError, *CertificateError.__subclasses__()]
    codes = {kind.code for kind in kinds}

    assert sorted(explained) == sorted({*codes, TrustError.code, RedirectError.code})


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", TEXT)

    assert [link for link in links if not (DOCS.parent / link).exists()] == []
