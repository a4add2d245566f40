"""What docs/background.md says holds."""

import os
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from ai_proxy.cli.main import app
from ai_proxy.cli.proxy import as_data
from ai_proxy.core.options import ProxyMode
from ai_proxy.core.settings import Limits
from ai_proxy.core.store_ports import Instance
from ai_proxy.instances.background import MARGIN, Outcome
from ai_proxy.instances.status import InstanceStatus

PAGE = Path(__file__).parents[3].joinpath("docs", "background.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].partition("|")[0]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("ai-proxy ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shown_is_one(command: str) -> None:
    group, words = get_command(app), shlex.split(command)[1:]

    while hasattr(group, "commands"):
        group = group.commands[words.pop(0)]

    group.make_context("ai-proxy", words)


def test_every_state_and_outcome_is_explained() -> None:
    states = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Status")[2].partition("## ")[0], re.MULTILINE)

    assert states == list(InstanceStatus)
    assert all(f"`{outcome}`" in PAGE for outcome in Outcome)
    assert all(f"`{mode}`" in PAGE for mode in ProxyMode)


def test_the_facts_for_scripts_are_named() -> None:
    facts = as_data(Instance("x", "m", os.getpid(), 1.0, "h", 1, "local-http"), InstanceStatus.RUNNING)

    assert ", ".join(f"`{name}`" for name in facts).replace("`uptime`", "`uptime` (seconds)") in PAGE.replace(
        "\n", " "
    )


def test_the_times_are_those_of_the_program() -> None:
    assert f"({Limits().shutdown_timeout:g} s)" in PAGE
    assert MARGIN == 5
