import json
from typing import Any

import pytest
from jsonschema import validate

from ai_proxy.api.application import openapi_document
from ai_proxy.api.errors import ApiErrorBody
from ai_proxy.api.schemas import EXAMPLES
from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import UnknownModelError
from ai_proxy.dialects import anthropic, openai

DOCUMENT = openapi_document()
OPERATIONS = [
    pytest.param(operation, id=f"{method} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
PROPERTIES = [
    pytest.param(facts, id=f"{name}.{one}")
    for name, schema in DOCUMENT["components"]["schemas"].items()
    for one, facts in schema.get("properties", {}).items()
]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_described(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    for parameter in operation.get("parameters", []):
        assert parameter["description"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_error_is_declared_as_the_problem_it_is(operation: dict[str, Any]) -> None:
    errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
    shapes = {
        (media, content["schema"]["$ref"].rpartition("/")[2])
        for answer in errors.values()
        for media, content in answer.get("content", {}).items()
    }
    assert shapes <= {
        ("application/problem+json", "Problem"),
        ("application/json", "ApiErrorBody"),
        ("application/json", "AnthropicErrorBody"),
        ("application/json", "Readiness"),
    }


@pytest.mark.parametrize("endpoint", Endpoint)
def test_every_endpoint_of_inference_is_described_with_examples_and_errors(endpoint: Endpoint) -> None:
    operation = DOCUMENT["paths"][endpoint]["post"]
    (body,) = operation["requestBody"]["content"].values()

    validate(body["example"], {**body["schema"], "required": ["model"]})
    assert {"400", "404", "501", "502", "503", "504"} <= set(operation["responses"])
    assert all("example" in one or one["schema"].get("format") for one in answers(operation))


def answers(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return list(operation["responses"]["200"]["content"].values())


def test_an_error_of_anthropics_api_has_the_form_that_is_described() -> None:
    schema = DOCUMENT["components"]["schemas"]["AnthropicErrorBody"]

    validate(
        json.loads(anthropic.error_body(UnknownModelError("x"), "1")),
        {**schema, "additionalProperties": False},
    )


def test_an_error_of_openais_api_has_the_form_that_is_described() -> None:
    ApiErrorBody.model_validate_json(openai.error_body(UnknownModelError("x"), "1"), extra="forbid")


def test_streams_are_described_as_events() -> None:
    content = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]

    assert content["text/event-stream"]["example"].endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("facts", PROPERTIES)
def test_every_property_is_described(facts: dict[str, Any]) -> None:
    assert facts.get("description") or "$ref" in facts


def test_operation_names_are_unique() -> None:
    names = [
        operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_have_the_shape_they_illustrate(name: str) -> None:
    schema = DOCUMENT["components"]["schemas"][name]
    (example,) = schema["examples"]
    assert set(schema.get("required", ())) <= set(example) <= set(schema["properties"])
