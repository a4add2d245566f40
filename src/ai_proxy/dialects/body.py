"""Reading what clients send: strict about types, with errors that say where and what."""

import re

import msgspec

from ai_proxy.core.errors import InvalidRequestError

JsonObject = dict[str, msgspec.Raw]
"""A JSON object that is passed on as it came."""

MAX_WORDS = 300
"""Longest quotation of what is wrong with a body, in characters."""

PLACE = re.compile(r"(?P<why>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
MISSING = re.compile(r"Object missing required field `(?P<field>.*)`", re.DOTALL)
UNKNOWN = re.compile(r"Invalid (?:enum )?value (?P<value>.*)", re.DOTALL)


def decode[T](body: bytes, kind: type[T]) -> T:
    """Return a client's body as what it has to be.

    Raises:
        InvalidRequestError: It is something else; `param` tells which part.
    """
    try:
        if not body.isascii():
            body.decode()
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = str(error).removeprefix("JSON is malformed: ")[:MAX_WORDS]
        raise InvalidRequestError(f"the body is not JSON: {why}") from None
    except RecursionError:
        raise InvalidRequestError("the body is not usable: it is nested too deeply") from None


def encode(value: object) -> bytes:
    """Return a value as JSON.

    >>> encode({"temperature": 0.5, "schema": msgspec.Raw(b'{ "type":"object" }')})
    b'{"temperature":0.5,"schema":{ "type":"object" }}'
    """
    return msgspec.json.encode(value)


def without_none(members: dict[str, object]) -> dict[str, object]:
    """Return the members that say something.

    >>> without_none({"seed": 0, "stop": None})
    {'seed': 0}
    """
    return {name: value for name, value in members.items() if value is not None}


def _misfit(words: str) -> InvalidRequestError:
    found = PLACE.fullmatch(words)
    why, where = (found["why"], found["where"] or "") if found else (words, "")
    if missing := MISSING.fullmatch(why):
        where = f"{where}.{missing['field']}" if where else missing["field"]
        why = "is required"
    elif unknown := UNKNOWN.fullmatch(why):
        why = f"{unknown['value']} is not among the values that are known here"
    else:
        why = why[:1].lower() + why[1:].replace("`", "")
    return InvalidRequestError(f"{where or 'the body'}: {why[:MAX_WORDS]}", where)
