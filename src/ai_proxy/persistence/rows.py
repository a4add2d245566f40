"""Rows of the database as facts, checked: another version or program may have written them."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from loguru import logger

UNREADABLE = (msgspec.MsgspecError, KeyError, TypeError, ValueError)
"""What a row raises that does not hold what this version expects."""


def encode(value: object) -> str:
    """Write a value as a JSON column holds it.

    >>> encode({"a": [1, None]})
    '{"a": [1, null]}'
    """
    return json.dumps(value)


def decode(stored: Any) -> Any:
    """Read a JSON column; SQLite keeps a bare number as a number.

    >>> decode("[1, null]"), decode(2.5)
    ([1, None], 2.5)
    """
    return stored if isinstance(stored, int | float) else json.loads(stored)


def fact[T](kind: type[T], row: Mapping[str, Any]) -> T:
    """Return a row as a dataclass of that kind.

    Raises:
        msgspec.ValidationError: A column is missing, or holds something else.
    """
    return msgspec.convert(row, kind, builtin_types=(bytes,))


def skip(what: str, error: Exception, then: str) -> None:
    """Log that a row is left out.

    Args:
        what: The row: `the API key 0123`.
        error: The reason.
        then: What follows, and what to do.
    """
    logger.error("cannot read {} in the store ({}: {}); {}", what, type(error).__name__, error, then)
