"""The files that people read and copy: the example, the starter, the reference, the schema."""

import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from ai_proxy.config.build import build_services
from ai_proxy.config.jsonschema import json_schema
from ai_proxy.config.load import load_config
from ai_proxy.config.reference import reference, starter
from ai_proxy.config.schema import Config, ServiceConfig

ENVIRON = {"CLOUD_KEY": "k", "HOME": "/root", "SIGNOZ_KEY": "k", "AI_PROXY_STORE_URL": "sqlite:///x"}
EXAMPLE = (Path(__file__).parents[3] / "config.example.yaml").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", reference(), flags=re.DOTALL)
SCHEMA = Draft202012Validator(json_schema())


def parse(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("text", [EXAMPLE, starter(), *BLOCKS])
def test_what_people_copy_loads_and_satisfies_the_schema(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")

    build_services(load_config(path, ENVIRON))

    assert [error.message for error in SCHEMA.iter_errors(parse(text))] == []


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "text",
    [
        "sevices: {}",
        "services: {a: {}}",
        "services: {A: {type: vllm}}",
        "services: {a: {type: vllm, port: 70000}}",
        "services: {a: {type: vllm, idle_timeout: 600}}",
        "services: {a: {type: vllm, idle_timeout: 5mm}}",
        "services: {a: {type: vllm, api_key: literal}}",
        "services: {a: {type: vllm, runtime: podman}}",
    ],
)
def test_editors_mark_mistakes(text: str) -> None:
    assert not SCHEMA.is_valid(parse(text))


@pytest.mark.parametrize(
    "text", ["services:", "server: {port: '${env:PORT}'}", "defaults: {idle_timeout: 0}"]
)
def test_editors_accept_what_loads(text: str) -> None:
    assert SCHEMA.is_valid(parse(text))


def test_every_key_is_described_for_editors() -> None:
    definitions = json_schema()["$defs"]

    undescribed = [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, part in definition.get("properties", {}).items()
        if not part.get("description")
    ]

    assert undescribed == []
    assert set(definitions["ServiceConfig"]["properties"]) == set(ServiceConfig.model_fields)


def test_the_reference_has_every_key() -> None:
    text = reference()

    assert all(f"| `{key}` |" in text for key in ServiceConfig.model_fields)
    assert all(f"## `{part}`" in text for part in Config.model_fields)
    assert "{{" not in text


def test_the_example_shows_each_kind_of_service(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(EXAMPLE, encoding="utf-8")

    runtimes = {service.launch.runtime for service in build_services(load_config(path, ENVIRON))}

    assert runtimes == {"docker", "process", "external"}
