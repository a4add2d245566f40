"""Validates plain data against the models, and reports every error at once in plain words."""

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ai_proxy.config.document import Document, Value
from ai_proxy.config.problems import Fault, KeyPath, did_you_mean
from ai_proxy.config.schema import Config

_WORDS: Mapping[str, tuple[str, str]] = {
    "int_type": ("{value} is not a whole number", "write digits without quotes"),
    "int_from_float": ("{value} is not a whole number", "write digits without a fraction"),
    "float_type": ("{value} is not a number", "write digits without quotes"),
    "finite_number": ("{value} is not a number", "write digits without quotes"),
    "bool_type": ("{value} is neither true nor false", "write true or false"),
    "string_type": ("not text", "put the value in quotes"),
    "string_too_short": ("is empty", "give it a value, or remove it"),
    "too_short": ("is empty", "give it at least one item"),
    "tuple_type": ("not a list", "write a list"),
    "dict_type": ("not a mapping", "write 'key: value' lines beneath it"),
    "model_type": ("not a mapping", "write 'key: value' lines beneath it"),
    "greater_than": ("{value} is too small", "use more than {gt}"),
    "greater_than_equal": ("{value} is too small", "use at least {ge}"),
    "less_than_equal": ("{value} is too large", "use at most {le}"),
}


def validate(data: Value, document: Document, folder: Path, lost: Set[KeyPath]) -> tuple[Config, list[Fault]]:
    """Read the data into a `Config`.

    Faulty parts are reported and left out, so that the rest is read and checked in the same run.

    Args:
        data: Plain data with references replaced; it is modified.
        document: The file as written.
        folder: Base of relative paths.
        lost: Paths already known to be faulty.

    Returns:
        The configuration without its faulty parts, and the faults not known before.
    """
    _, errors = _read(data, folder)
    faults = [_fault(details, document) for details in errors if _path(details) not in lost]
    rest = without(data, lost)
    while errors:
        rest = without(rest, {_path(details) for details in errors})
        _, errors = _read(rest, folder)
    config, _ = _read(rest, folder)
    return config, faults


def _read(data: Value, folder: Path) -> tuple[Config, list[ErrorDetails]]:
    try:
        return Config.model_validate(data, context={"folder": folder}), []
    except ValidationError as error:
        return Config(), error.errors(include_url=False, include_input=False)


def without(data: Any, paths: Iterable[KeyPath]) -> Any:
    """Return the data without the keys at `paths`; a missing key removes the mapping that lacks it.

    A path to an item removes the whole list.

    >>> without({"a": {"b": 1, "c": [1, 2]}}, [("a", "c", 0)])
    {'a': {'b': 1}}
    >>> without({"services": {"x": {"port": 1}}}, [("services", "x", "type")])
    {'services': {}}
    """
    targets = {_target(data, path) for path in paths}
    if () in targets:
        return {}
    for *parents, name in targets:
        holder = data
        for key in parents:
            holder = holder.get(key, {})
        holder.pop(name, None)
    return data


def _target(data: Any, path: KeyPath) -> KeyPath:
    """Return the longest prefix of a path that can be removed."""
    for depth, key in enumerate(path):
        if not isinstance(data, dict) or key not in data:
            return path[:depth]
        data = data[key]
    return path


def _path(details: ErrorDetails) -> KeyPath:
    return tuple(key for key in details["loc"] if key != "[key]")


def _fault(details: ErrorDetails, document: Document) -> Fault:
    path, kind, context = _path(details), details["type"], details.get("ctx", {})
    on_key = kind == "extra_forbidden" or details["loc"][-1:] == ("[key]",)
    match kind:
        case "extra_forbidden":
            known = _keys(path[:-1])
            message, hint = "unknown key", did_you_mean(str(path[-1]), known, f"known are {', '.join(known)}")
        case "missing":
            message, hint = "is missing", f"add it{_example(path)}"
        case "enum" | "literal_error":
            choices = str(context["expected"])
            names = choices.replace("'", "").replace(" or ", ", ").split(", ")
            message = "{value} is not allowed"
            hint = did_you_mean(str(document.value_at(path)), names, f"use {choices}")
        case "invalid":
            message, hint = context["message"], context["hint"]
        case _:
            message, hint = _WORDS.get(kind, (details["msg"], "see 'ai-proxy config schema'"))
            hint = hint.format_map(context) + _example(path)
    return Fault(path, message, hint, on_key=on_key)


def _example(path: KeyPath) -> str:
    """Return an example value for the end of a hint; empty when the schema has none."""
    field = _field(path)
    if field is None or not field.examples:
        return ""
    example = str(field.examples[0]).replace("'", '"')
    return f", for example {example}"


def _keys(path: KeyPath) -> list[str]:
    model = _kind(path)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _field(path: KeyPath) -> FieldInfo | None:
    model = _kind(path[:-1])
    known = isinstance(model, type) and issubclass(model, BaseModel)
    return model.model_fields.get(str(path[-1])) if known and path else None


def _kind(path: KeyPath) -> Any:
    """Return the type that the schema declares for a path; None for a path it does not declare."""
    kind: Any = Config
    for key in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(key))
            kind = _plain(field.annotation) if field else None
        elif get_origin(kind) is dict:
            kind = _plain(get_args(kind)[1])
        else:
            return None
    return kind


def _plain(annotation: Any) -> Any:
    """Strip `| None` from an annotation."""
    if get_origin(annotation) in (Union, UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation
