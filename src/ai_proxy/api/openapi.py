"""The OpenAPI document, made complete from the docstrings.

The facts of the control plane are plain dataclasses that are documented once, in their docstrings; the
section `Attributes:` of each becomes the descriptions of its properties.
"""

import re
from inspect import cleandoc
from typing import Any

_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    r"""Take a docstring apart into what it says of the whole and of each attribute.

    >>> split_docstring("A line.\n\nAttributes:\n    seq: Counts the lines\n        from 1.\n    at: When.")
    ('A line.', {'seq': 'Counts the lines from 1.', 'at': 'When.'})
    """
    summary, _, attributes = cleandoc(text).partition("\n\nAttributes:\n")
    return summary, {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(attributes)}


def describe_properties(document: dict[str, Any]) -> dict[str, Any]:
    """Move the attributes' descriptions of every schema to its properties; return the document."""
    for schema in document.get("components", {}).get("schemas", {}).values():
        schema["description"], attributes = split_docstring(schema.get("description", ""))
        for name, described in attributes.items():
            schema["properties"][name].setdefault("description", described)
    return document
