"""What engines answer about themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

MAX_VALUES = 200_000
"""Most values in an answer that is read as JSON: no engine needs more, and reading more takes long."""


def has_too_many_values(body: bytes) -> bool:
    """Return whether JSON holds too many values to be read."""
    return sum(map(body.count, (b",", b"{", b"["))) > MAX_VALUES


def read_json(body: bytes) -> object:
    """Return decoded JSON; None when it is invalid, nested too deeply, or has too many values.

    >>> read_json(b'{"a":1}'), read_json(b"<html>"), read_json(b"[" + b"0," * MAX_VALUES + b"0]")
    ({'a': 1}, None, None)
    """
    if has_too_many_values(body):
        return None
    try:
        value: object = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    return value


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP, whatever its status.

    Attributes:
        status: Of HTTP.
        body: Its beginning, up to a limit.
        headers: By name in lower case.
        seconds: From the request to the end of the body.
        json: The body as JSON, as `read_json` returns it.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    json: object = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "json", read_json(self.body))

    @property
    def complaint(self) -> str:
        """The message of a refusal in its own words, else its status.

        >>> Answer(503, b'{"error":{"message":"Loading model","code":503}}').complaint
        'loading model'
        >>> Answer(500, b"<html>").complaint
        'it answers with status 500'
        """
        match self.json:
            case {"error": {"message": str(found)}} | {"error": str(found)} | {"detail": str(found)} if (
                text := printable(found[:200])
            ):
                return text[:1].lower() + text[1:]
            case _:
                return f"it answers with status {self.status}"

    @property
    def has_error(self) -> bool:
        """Whether the body is an error, whatever the status.

        >>> Answer(200, b'{"error":"Unexpected endpoint"}').has_error, Answer(200, b'{"data":[]}').has_error
        (True, False)
        """
        match self.json:
            case {"error": error}:
                return bool(error)
            case _:
                return False


type Answers = Mapping[str, Answer]
"""Answers by path."""


def printable(text: str) -> str:
    r"""Return a text without the characters that cannot be shown on one line.

    >>> printable("out of\nmemory\x1b[0m")
    'out of memory [0m'
    """
    return (
        text if text.isprintable() else " ".join("".join(c if c.isprintable() else " " for c in text).split())
    )


def text_at(answers: Answers, path: str, key: str) -> str | None:
    """Return the text under a key of an answer: `{"version":"0.32.0"}`; None when absent.

    >>> text_at({"/version": Answer(200, b'{"version":"0.32.0"}')}, "/version", "version")
    '0.32.0'
    """
    answer = answers.get(path)
    match answer.json if answer is not None and answer.status == 200 else None:
        case {**fields} if isinstance(text := fields.get(key), str) and text:
            return printable(text[:200])
        case _:
            return None


def is_owned_by(answers: Answers, owner: str) -> bool:
    """Return whether the list of models in OpenAI's format has that owner.

    >>> is_owned_by({"/v1/models": Answer(200, b'{"data":[{"id":"m","owned_by":"vllm"}]}')}, "vllm")
    True
    """
    answer = answers.get("/v1/models")
    match answer.json if answer is not None else None:
        case {"data": [{"owned_by": str(found)}, *_]}:
            return found == owner
        case _:
            return False
