"""The JSON Schema of the configuration file, generated from the models for editors."""

from typing import Any

from ai_proxy.config.fields import REFERENCE, SERVICE_ID
from ai_proxy.config.schema import Config
from ai_proxy.core.durations import format_duration

type Schema = dict[str, Any]


def json_schema() -> Schema:
    """Return the schema, with the descriptions that the documentation shows."""
    raw = Config.model_json_schema()
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ai-proxy configuration",
        **{key: value for key, value in _tidy(raw).items() if key != "title"},
    }
    for name, part in schema["properties"].items():
        if part.get("type") == "object":
            part["propertyNames"] = {"pattern": f"^{SERVICE_ID.pattern}$"}
        description = part.pop("description", "") or schema["$defs"][f"{name.title()}"]["description"]
        schema["properties"][name] = {"description": description, "anyOf": [part, {"type": "null"}]}
    return schema


def _tidy(node: Any) -> Any:
    """Shorten the schema, and allow references in place of whole numbers."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = _without_null(node)
    tidy = {key: value if key in ("default", "examples") else _tidy(value) for key, value in node.items()}
    if isinstance(node.get("title"), str):
        del tidy["title"]
    default = tidy.get("default")
    if default is None or isinstance(default, (dict, list)):
        tidy.pop("default", None)
    elif tidy.get("x-kind") == "duration":
        tidy["default"] = format_duration(default)
    if tidy.get("type") == "integer":
        limits = {key: tidy.pop(key) for key in ("type", "minimum", "maximum") if key in tidy}
        tidy = {"anyOf": [limits, REFERENCE], **tidy}
    return tidy


def _without_null(node: Schema) -> Schema:
    """Replace `X or null` by X: the file omits a key rather than setting it to null."""
    choices = node.get("anyOf", [])
    if {"type": "null"} not in choices:
        return node
    (choice,) = (choice for choice in choices if choice != {"type": "null"})
    return {**choice, **{key: value for key, value in node.items() if key != "anyOf"}}
