from typing import Any

import pytest

from ai_proxy.api.application import openapi_document

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
    names = [param.values[0]["operationId"] for param in OPERATIONS]  # type: ignore[index]
    assert len(names) == len(set(names))


def test_examples_are_given_for_what_services_answer() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["ServiceView"]["example"]["state"] == "ready"
    assert schemas["Problem"]["example"]["code"] == "unknown_service"
