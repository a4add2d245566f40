"""Decodes the bodies that clients send: strict about types, with errors that name the member at fault."""

import re

import msgspec

from ai_proxy.core.errors import InvalidRequestError

JsonObject = dict[str, msgspec.Raw]
"""A JSON object whose members are passed on unchanged."""

MAX_REASON = 300
"""Longest reason in an error message, in characters."""

LOCATED = re.compile(r"(?P<reason>.*?)(?: - at `\$\.?(?P<param>.*)`)?", re.DOTALL)
MISSING = re.compile(r"Object missing required field `(?P<field>.*)`", re.DOTALL)
UNKNOWN = re.compile(r"Invalid (?:enum )?value (?P<value>.*)", re.DOTALL)


def decode[T](body: bytes, kind: type[T]) -> T:
    """Decode a client's body as a value of the given type.

    Raises:
        InvalidRequestError: The body does not have that type; `param` names the member at fault.
    """
    try:
        if not body.isascii():
            body.decode()
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid_member(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error).removeprefix("JSON is malformed: ")[:MAX_REASON]
        raise InvalidRequestError(f"the body is not JSON: {reason}") from None
    except RecursionError:
        raise InvalidRequestError("the body is nested too deeply") from None


def encode(value: object) -> bytes:
    """Return a value as JSON.

    >>> encode({"temperature": 0.5, "schema": msgspec.Raw(b'{ "type":"object" }')})
    b'{"temperature":0.5,"schema":{ "type":"object" }}'
    """
    return msgspec.json.encode(value)


def without_none(members: dict[str, object]) -> dict[str, object]:
    """Return the members that have a value.

    >>> without_none({"seed": 0, "stop": None})
    {'seed': 0}
    """
    return {name: value for name, value in members.items() if value is not None}


def _invalid_member(text: str) -> InvalidRequestError:
    """Turn msgspec's message into an error that names the member as clients write it."""
    found = LOCATED.fullmatch(text)
    reason, param = (found["reason"], found["param"] or "") if found else (text, "")
    if missing := MISSING.fullmatch(reason):
        param = f"{param}.{missing['field']}" if param else missing["field"]
        reason = "is required"
    elif unknown := UNKNOWN.fullmatch(reason):
        reason = f"{unknown['value']} is not a supported value"
    else:
        reason = reason[:1].lower() + reason[1:].replace("`", "")
    return InvalidRequestError(f"{param or 'the body'}: {reason[:MAX_REASON]}", param)
