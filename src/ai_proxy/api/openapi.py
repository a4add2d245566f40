"""Completes the OpenAPI document that FastAPI generates.

The control plane's dataclasses are documented in their docstrings; the section `Attributes:` of each becomes
the descriptions of its properties. Errors become the problems that `errors.py` answers. `inference.py`
contributes the endpoints that the gateway serves.
"""

import copy
import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from ai_proxy.api import inference
from ai_proxy.api.errors import Problem
from ai_proxy.core.http import PROBLEM

_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
_REFERENCE = {"$ref": f"#/components/schemas/{Problem.__name__}"}
_FASTAPI_ERRORS = ("HTTPValidationError", "ValidationError")


def complete(document: dict[str, Any], examples: dict[str, object]) -> dict[str, Any]:
    """Complete a document, and return it.

    Args:
        document: As FastAPI generates it; changed in place.
        examples: By name of the schema.
    """
    document["paths"] = {**inference.operations(), **document["paths"]}
    schemas = document["components"]["schemas"]
    schemas.update(copy.deepcopy(inference.SCHEMAS))
    for name in _FASTAPI_ERRORS:
        schemas.pop(name, None)
    for name, schema in schemas.items():
        _describe_properties(schema)
        if name in examples:
            schema["examples"] = [examples[name]]
    for status, response in _responses(document):
        _declare_problem(status, response)
    return document


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    r"""Split a docstring into its summary and the descriptions of its attributes.

    >>> split_docstring("A line.\n\nAttributes:\n    seq: Counts the lines\n        from 1.\n    at: When.")
    ('A line.', {'seq': 'Counts the lines from 1.', 'at': 'When.'})
    """
    summary, _, attributes = cleandoc(text).partition("\n\nAttributes:\n")
    return summary, {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(attributes)}


def _describe_properties(schema: dict[str, Any]) -> None:
    schema["description"], attributes = split_docstring(schema.get("description", ""))
    for name, described in attributes.items():
        schema["properties"][name].setdefault("description", described)


def _responses(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            yield from operation["responses"].items()


def _declare_problem(status: str, response: dict[str, Any]) -> None:
    """Declare the media type of errors, and the body of a 422."""
    content = response.get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").rpartition("/")[2] in _FASTAPI_ERRORS:
        response["description"] = "The request is invalid; `errors` says why."
        schema = _REFERENCE
    if schema == _REFERENCE and status >= "400":
        response["content"] = {PROBLEM: {"schema": _REFERENCE}}
