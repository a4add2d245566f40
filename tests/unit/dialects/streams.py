"""Streams as engines send them, recorded or made, and what becomes of them."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st

from ai_proxy.dialects import sse
from ai_proxy.dialects.translation import Translation

FIXTURES = Path(__file__).with_name("fixtures")
DONE = b"data: [DONE]\n\n"
STOP = {"finish_reason": "stop"}


def recorded(name: str) -> bytes:
    """What a real engine has answered."""
    return (FIXTURES / name).read_bytes()


def chunk(delta: dict[str, object] | None = None, **choice: object) -> bytes:
    """One event of a chat completion's stream."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": None, **choice}]
    return data({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices})


def data(body: dict[str, object]) -> bytes:
    return b"data: %s\n\n" % json.dumps(body).encode()


def usage(prompt: int, completion: int) -> bytes:
    """The event that tells the tokens, before the end."""
    return data({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


def call(index: int | None, arguments: str = "", *, id: str | None = None, name: str | None = None) -> bytes:  # noqa: A002
    """A piece of a tool call."""
    function = {"name": name, "arguments": arguments}
    return chunk({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})


def completion(message: dict[str, object], **rest: object) -> bytes:
    """A whole chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return json.dumps({"id": "chatcmpl-1", "choices": [choice | rest]}).encode()


def translated(translation: Translation, stream: bytes, cuts: Iterable[int] = ()) -> bytes:
    """What a client gets of a stream that ends well."""
    sent = b"".join(translation.feed(piece) for piece in pieces(stream, cuts))
    return sent + translation.finish()


def pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The stream, cut at some places."""
    places = sorted({0, *cuts, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(places)]


def cuts(stream: bytes) -> st.SearchStrategy[list[int]]:
    """Places to cut a stream at."""
    return st.lists(st.integers(0, len(stream)), max_size=12)


def events(stream: bytes) -> list[dict[str, object]]:
    """The data of a stream of Anthropic's, each of which names its event itself."""
    found = [(event.name, json.loads(event.data)) for event in sse.Parser().feed(stream)]
    assert all(name == body["type"] for name, body in found)
    return [body for _, body in found]


def lines(stream: bytes) -> list[dict[str, object]]:
    """The lines of a stream of Ollama's."""
    assert stream.endswith(b"\n")
    return [json.loads(line) for line in stream.splitlines()]


def shape(value: object) -> object:
    """What an answer is made of: names and types, without what it says."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__
