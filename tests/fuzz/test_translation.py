"""Whatever clients ask in another dialect, and engines answer: translated, or refused; no end is made up."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.conftest import examples
from tests.fuzz.test_requests import mutate
from tests.unit.dialects.streams import DONE, STOP, call, chunk, completion, pieces, usage
from tests.unit.dialects.values import near_misses, values

from ai_proxy.core.errors import (
    InvalidRequestError,
    UnsupportedModalitiesError,
    UnsupportedParameterError,
    UpstreamClosedError,
    UpstreamInvalidError,
)
from ai_proxy.dialects import anthropic, ollama
from ai_proxy.dialects.translation import Translation
from ai_proxy.testing.fakes import FakeClock

type Translate = Callable[[bytes], Translation]

TRANSLATIONS: dict[str, Translate] = {
    "messages": lambda body: anthropic.translate(body, "r1"),
    "chat": lambda body: ollama.chat(body, FakeClock()),
    "generate": lambda body: ollama.generate(body, FakeClock()),
    "embed": lambda body: ollama.embed(body, FakeClock()),
    "embeddings": ollama.embeddings,
}
TOOL = {"name": "now", "description": "the time", "input_schema": {"type": "object"}}
ASKED: dict[str, object] = {
    "model": "m",
    "max_tokens": 9,
    "system": "be brief",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "now", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "noon"}]},
    ],
    "prompt": "hello",
    "input": ["a", "b"],
    "tools": [TOOL],
    "options": {"temperature": 0.5, "stop": ["x"]},
    "stream": True,
}
KINDS = st.sampled_from(["insert", "replace", "delete", "cut"])
TOKENS = (
    *(
        b"data: ",
        b"\n\n",
        b"\n",
        b"\r\n",
        b"[DONE]",
        b"{",
        b"}",
        b"null",
        b"[]",
        b'"',
        b",",
        b":",
        b"\xff",
        b"\x00",
    ),
    *(
        b'"choices":',
        b'"index":7',
        b'"finish_reason":"stop"',
        b'"error":{"message":"no"}',
        b"event: error\n",
        b": c\n",
    ),
    *(chunk({"content": "more"}), chunk({}, **STOP), DONE, call(1, "{", id="c2", name="now")),
)
CHANGES = st.lists(st.tuples(KINDS, st.integers(0, 100_000), st.sampled_from(TOKENS)), max_size=4)
STREAMS = st.sampled_from(
    [
        chunk({"content": "Hel"}) + chunk({"content": "lo"}) + chunk({}, **STOP) + usage(3, 2) + DONE,
        chunk({"reasoning_content": "Hm."}) + chunk({"content": "Yes."}) + chunk({}, **STOP) + DONE,
        call(0, '{"city":', id="c1", name="weather")
        + call(0, '"Bern"}')
        + chunk({}, finish_reason="tool_calls")
        + DONE,
    ]
)
WHOLE = st.sampled_from(
    [completion({"content": "Hello"}), b'{"data":[{"index":0,"embedding":[0.5]}]}', b"{}"]
)


@pytest.mark.parametrize("translate", TRANSLATIONS.values(), ids=TRANSLATIONS)
@settings(max_examples=examples(300), deadline=None)
@given(near_misses(ASKED) | values)
def test_a_request_is_translated_into_json_with_its_model_or_refused(
    translate: Translate, asked: object
) -> None:
    try:
        translation = translate(json.dumps(asked).encode())
    except (InvalidRequestError, UnsupportedParameterError, UnsupportedModalitiesError):
        return

    assert isinstance(asked, dict)
    assert json.loads(translation.request)["model"] == asked["model"]


@pytest.mark.parametrize("name", ["messages", "chat", "generate"])
@settings(max_examples=examples(400), deadline=None)
@given(STREAMS, CHANGES, st.lists(st.integers(0, 2000), max_size=5))
def test_a_stream_is_told_whole_or_with_an_error(
    name: str, stream: bytes, changed: list[tuple[str, int, bytes]], cuts: list[int]
) -> None:
    ends = {"messages": b'"type":"message_stop"', "chat": b'"done":true', "generate": b'"done":true'}
    translation = TRANSLATIONS[name](
        json.dumps({**ASKED, "messages": [{"role": "user", "content": "x"}]}).encode()
    )
    broken = mutate(stream, changed)
    told = b""

    try:
        for piece in pieces(broken, [cut for cut in cuts if cut < len(broken)]):
            told += translation.feed(piece)
        told += translation.finish()
    except (UpstreamInvalidError, UpstreamClosedError) as error:
        told += translation.failure(error)
        assert told.count(ends[name]) == 0
        assert b"error" in told
        return

    assert told.count(ends[name]) == 1
    assert b"finish_reason" in broken or b"[DONE]" in broken, "an end was made up"


@pytest.mark.parametrize("translate", TRANSLATIONS.values(), ids=TRANSLATIONS)
@settings(max_examples=examples(200), deadline=None)
@given(WHOLE, CHANGES, st.integers(400, 599))
def test_a_whole_answer_is_translated_into_json_or_refused(
    translate: Translate, answer: bytes, changed: list[tuple[str, int, bytes]], status: int
) -> None:
    asked = {**ASKED, "messages": [{"role": "user", "content": "x"}], "input": "a", "stream": False}
    translation = translate(json.dumps(asked).encode())
    broken = mutate(answer, changed)

    json.loads(translation.refusal(status, broken))
    try:
        told = translation.whole(broken)
    except UpstreamInvalidError:
        return

    json.loads(told)
