"""What docs/keys.md says holds."""

import ast
import json
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from ruamel.yaml import YAML

from ai_proxy.api.application import openapi_document
from ai_proxy.api.keys import NewKey
from ai_proxy.cli.main import app
from ai_proxy.core import errors
from ai_proxy.core.keys import Scope, check_grant
from ai_proxy.core.limits import Allowance, Bucket, Rate
from ai_proxy.core.policy import Policy
from ai_proxy.core.policy_document import parse_policy, policy_document
from ai_proxy.core.run_settings import SETTINGS

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "keys.md").read_text(encoding="utf-8")
KEPT = re.compile(r"/api/v1/(keys|usage|policy|audit|settings)")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the first table under a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)[1:]
    return [re.sub("`", "", line).split(" | ") for line in lines]


COMMANDS = [
    line.partition(" #")[0]
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("ai-proxy")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shown_is_one(command: str) -> None:
    words = shlex.split(command)[1:]

    result = typer.testing.CliRunner().invoke(app, [*words, "--help"])

    assert result.exit_code == 0
    assert all(word in result.output for word in words if word.startswith("--"))


def test_every_command_about_keys_and_policy_is_shown() -> None:
    def named(*group: str) -> set[str]:
        words = [shlex.split(command)[1:] for command in COMMANDS]
        return {one[len(group)] for one in words if tuple(one[: len(group)]) == group}

    assert named("api-keys") == {"create", "list", "rotate", "revoke", "usage"}
    assert named("security", "policy") == {"show", "edit", "set", "history", "schema"}
    assert named("config") == {"list", "set", "get", "unset"}


def test_the_policy_shown_is_one_and_has_all_there_is() -> None:
    (text,) = blocks("yaml")
    document: dict[str, Any] = YAML(typ="safe").load(text)

    assert parse_policy(document) != Policy()
    assert document.keys() == policy_document(Policy()).keys()


def test_the_new_key_shown_is_one() -> None:
    (text,) = blocks("json")

    check_grant(NewKey.model_validate(json.loads(text)).grant())


def test_the_python_shown_is_python() -> None:
    for block in blocks("python"):
        ast.parse(block)


def test_every_scope_and_limit_is_explained() -> None:
    told = dict(rows("Keys"))

    assert all(scope in told["scopes"] for scope in Scope)
    assert {name for names in told for name in names.split(", ")} >= {one.name for one in fields(Allowance)}


def test_every_error_code_named_is_one_there_is() -> None:
    known = {
        (str(error.status), error.code)
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.ProxyError)
    }

    assert {(status, code) for status, code, _ in rows("Responses to refused requests")} <= known


def test_the_headers_named_are_those_that_are_sent() -> None:
    lines = Bucket(Rate(60, 10)).headers(b"requests", now=100.0).decode().splitlines()
    sent = {line.partition(":")[0] for line in lines}

    assert set(re.findall(r"`(x-ratelimit-[\w-]+)`", PAGE)) == sent


def test_every_setting_is_listed_with_its_range() -> None:
    assert {name: spec.range for name, spec in SETTINGS.items()} == dict(rows("Settings at run time"))


def test_every_request_is_listed() -> None:
    listed = {request for request, _ in rows("Over HTTP")}
    answered = {
        f"{method.upper()} {path}"
        for path, methods in openapi_document()["paths"].items()
        if KEPT.match(path)
        for method in methods
    }

    assert listed == answered


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)

    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
