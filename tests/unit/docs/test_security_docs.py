"""What docs/security.md says holds."""

import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from ai_proxy.cli.main import app
from ai_proxy.config.build import security_settings
from ai_proxy.config.load import load_config
from ai_proxy.core import errors
from ai_proxy.core.policy_document import parse_policy
from ai_proxy.core.settings import SecuritySettings, ServerSettings
from ai_proxy.gateway.guard import REFUSALS
from ai_proxy.gateway.routing.endpoints import PUBLIC
from ai_proxy.persistence import sqlite
from ai_proxy.security import audit, sync

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "security.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line.partition("#")[0]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shown_is_one(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").touch()
    group, words = get_command(app), shlex.split(command)[1:]

    while hasattr(group, "commands"):
        group = group.commands[words.pop(0)]

    group.make_context("ai-proxy", words)


def test_it_takes_five_commands_to_open_the_proxy() -> None:
    block = re.search(r"## Opening the proxy to a team\n\n```sh\n(.*?)```", PAGE, re.DOTALL)

    assert block is not None
    assert len(block[1].splitlines()) == 5


@pytest.mark.parametrize("block", [block for block in BLOCKS if "hosts" not in block])
def test_every_policy_shown_is_one(block: str) -> None:
    assert parse_policy(YAML(typ="safe").load(block)) != parse_policy({})


def test_the_configuration_shown_loads(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "hosts" in block]
    config = tmp_path / "config.yaml"
    config.write_text(block)

    assert security_settings(load_config(config, {})) == SecuritySettings(hosts=("gpu.example.com",))


def test_every_error_named_is_one_with_that_status_and_every_refusal_is_named() -> None:
    known = {
        (error.code, error.status)
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.ProxyError)
    }
    named = {(code, int(status)) for status, code in re.findall(r"(\d{3}) `(\w+)`", PAGE)}
    kinds = {kind for refusal in REFUSALS for kind in (refusal, *refusal.__subclasses__())}

    assert named <= known
    assert {kind.code for kind in kinds} <= {code for code, _ in named}


def test_the_numbers_are_those_of_the_program() -> None:
    assert ServerSettings().host == "127.0.0.1"
    assert f"http://127.0.0.1:{ServerSettings().port}" in PAGE
    assert f"first {audit.REFUSALS.burst}, and {audit.REFUSALS.per_minute} in a minute" in PAGE
    assert (sync.WRITE_EVERY, sqlite.LOOK_EVERY) == (2.0, 0.5)
    assert all(f"`{path.decode()}`" in PAGE for path in PUBLIC)


def test_every_kind_of_attacker_has_tests() -> None:
    table = re.search(r"<!-- threats:begin -->\n.*\n.*\n((?:\|.*\n)+)", PAGE)
    assert table is not None
    rows = [row.strip("| ").split(" | ") for row in table[1].splitlines()]

    assert all(len(row) == 3 for row in rows)
    assert {attacker for attacker, _, _ in rows} >= {
        "a web page",
        "an ordinary key",
        "a limited key",
        "a local user",
        "a backend",
        "an operator's mistake",
    }


def test_every_link_leads_somewhere() -> None:
    assert all((DOCS / test).exists() for test in re.findall(r"\]\((\.\./tests/[^)]+)\)", PAGE))
    for page, anchor in re.findall(r"\]\((?!\.\./tests/)([^)#]+)(?:#([^)]+))?\)", PAGE):
        headings = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)

        assert not anchor or anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}
