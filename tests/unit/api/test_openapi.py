from typing import Any

import pytest

from ai_proxy.api.application import openapi_document
from ai_proxy.api.schemas import EXAMPLES

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
        for media, content in answer["content"].items()
    }
    assert shapes <= {("application/problem+json", "Problem"), ("application/json", "Readiness")}


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
    assert set(schema["required"]) <= set(example) <= set(schema["properties"])
