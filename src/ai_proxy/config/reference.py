"""Generates the reference of the configuration file from the models and the built-in types."""

import json
import re
from importlib.resources import files

from ai_proxy.config.jsonschema import Schema, json_schema
from ai_proxy.core.templates import Recipe
from ai_proxy.engines.catalog import BUILT_IN

_PLACE = re.compile(r"^\{\{(\w+)\}\}$", re.MULTILINE)


def reference() -> str:
    """Return `docs/configuration.md`: the prose of `reference.md` with a table for each `{{Model}}`."""
    prose = files("ai_proxy.config").joinpath("reference.md").read_text(encoding="utf-8")
    schema = json_schema()
    return _PLACE.sub(lambda match: _table(match.group(1), schema), prose)


def starter() -> str:
    """Return the file that `ai-proxy config init` writes."""
    return files("ai_proxy.config").joinpath("starter.yaml").read_text(encoding="utf-8")


def _table(place: str, schema: Schema) -> str:
    if place == "builtin_types":
        return _types_table()
    definition = schema["$defs"][place]
    required = definition.get("required", [])
    rows = [
        " | ".join(
            [
                f"| `{name}`",
                _kind(part, schema),
                _default(part, required=name in required),
                _meaning(part) + " |",
            ]
        )
        for name, part in definition["properties"].items()
    ]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])


def _types_table() -> str:
    rows = [
        f"| `{template.name}` | {template.description} | {_code(template.image)} | {_code(template.port)} "
        f"| {_code(template.health_path)} | {_run(template.process) or _code(template.url)} |"
        for engine in BUILT_IN.values()
        for template in engine.templates
    ]
    head = "| type | what it is | image | port | health path | by itself |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def _run(recipe: Recipe) -> str:
    words = [
        *(f"{name}={value}" for name, value in recipe.env.items()),
        *recipe.command,
        *recipe.args,
        *recipe.address,
    ]
    return _code(" ".join(words)) if recipe.command else ""


def _code(value: object) -> str:
    return f"`{value}`" if value else ""


def _kind(part: Schema, schema: Schema) -> str:
    """Return the kind of value a key takes, in words."""
    if "x-kind" in part:
        return str(part["x-kind"])
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return _kind(schema["$defs"][name], schema) if "enum" in schema["$defs"][name] else "mapping"
    if "enum" in part:
        return " or ".join(f"`{choice}`" for choice in part["enum"])
    if "anyOf" in part:
        return _kind(part["anyOf"][0], schema)
    words = {
        "string": "text",
        "array": "list of text",
        "object": "mapping of text",
        "boolean": "true or false",
    }
    return str(words.get(part["type"], part["type"]))


def _default(part: Schema, *, required: bool) -> str:
    if required:
        return "required"
    return f"`{_plain(part['default'])}`" if "default" in part else ""


def _meaning(part: Schema) -> str:
    text = part.get("description", "").replace("|", "\\|")
    examples = part.get("examples", [])
    return f"{text} Example: `{_plain(examples[0])}`" if examples else text


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
