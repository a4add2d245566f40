import json
from collections.abc import Callable

import pytest
from anthropic import Anthropic, APIStatusError
from anthropic.types import Message
from httpx2 import Client, MockTransport, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.dialects.streams import (
    DONE,
    STOP,
    call,
    chunk,
    cuts,
    data,
    events,
    pieces,
    recorded,
    translated,
    usage,
)

from ai_proxy.core.errors import UpstreamClosedError, UpstreamInvalidError
from ai_proxy.dialects import anthropic
from ai_proxy.dialects.translation import ChatTranslation

TOOLS = (
    chunk({"role": "assistant", "content": None})
    + chunk({"content": "Let me "})
    + chunk({"content": "see."})
    + call(0, id="c1", name="weather")
    + call(0, '{"city":')
    + call(0, ' "Bern"}')
    + call(1, '{"city": "Rome"}', id="c2", name="weather")
    + chunk({}, finish_reason="tool_calls")
    + usage(20, 10)
    + DONE
)
THOUGHTS = (
    chunk({"reasoning_content": "H"})
    + chunk({"reasoning_content": "m."})
    + chunk({"content": "Yes."})
    + chunk({}, **STOP)
    + DONE
)
EMPTY = chunk({}, **STOP) + DONE


def ask(**request: object) -> ChatTranslation:
    asked = {"model": "claude", "messages": [{"role": "user", "content": "x"}], "stream": True, **request}
    return anthropic.translate(json.dumps(asked).encode(), "r1")


def accumulated(stream: bytes, **request: object) -> Message:
    """What the official SDK makes of a stream, with the proxy's translation for a server."""

    def serve(asked: Request) -> Response:
        body = translated(anthropic.translate(asked.content), stream)
        return Response(200, content=body, headers={"content-type": "text/event-stream"})

    return _with_sdk(serve, lambda client: _final(client, **request))


def _with_sdk[T](serve: Callable[[Request], Response], use: Callable[[Anthropic], T]) -> T:
    http = Client(transport=MockTransport(serve))
    with Anthropic(api_key="x", base_url="http://proxy", http_client=http, max_retries=0) as client:
        return use(client)


def _final(client: Anthropic, **request: object) -> Message:
    asked = {"model": "claude", "max_tokens": 99, "messages": [{"role": "user", "content": "x"}], **request}
    with client.messages.stream(**asked) as stream:  # type: ignore[arg-type]
        return stream.get_final_message()


def test_events_come_in_the_order_of_anthropics_api() -> None:
    assert events(translated(ask(), recorded("llamacpp_chat.sse"))) == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_IVsONUwVLFcU4AHXL79TJnWz0CGWUJqa",
                "type": "message",
                "role": "assistant",
                "model": "claude",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 0,
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                    "output_tokens": 0,
                },
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " the"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " quick"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " brown"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {
                "input_tokens": 1,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 8,
                "output_tokens": 3,
            },
        },
        {"type": "message_stop"},
    ]


@pytest.mark.parametrize(
    ("name", "text", "tokens"),
    [
        ("llamacpp_chat.sse", " the quick brown", (1, 3)),
        ("vllm_chat.sse", "cccc", (8, 4)),
        ("ollama_openai_chat.sse", " the quick brown", (9, 3)),
    ],
)
def test_the_sdk_puts_recorded_streams_together(name: str, text: str, tokens: tuple[int, int]) -> None:
    message = accumulated(recorded(name))

    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": text}]
    assert (message.stop_reason, message.model) == ("max_tokens", "claude")
    assert (message.usage.input_tokens, message.usage.output_tokens) == tokens


def test_the_sdk_puts_parallel_tool_calls_together() -> None:
    message = accumulated(TOOLS, tools=[{"name": "weather", "input_schema": {"type": "object"}}])

    assert [block.to_dict() for block in message.content] == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bern"}},
        {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Rome"}},
    ]
    assert message.stop_reason == "tool_use"


def test_each_block_is_closed_before_the_next_begins() -> None:
    found = [
        (event["type"], event["index"]) for event in events(translated(ask(), TOOLS)) if "index" in event
    ]
    assert found == [
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
    ]


@pytest.mark.parametrize("index", [0, None])
def test_tool_calls_are_told_apart_by_their_ids_where_all_have_one_number(index: int | None) -> None:
    stream = (
        call(index, '{"a":1}', id="c1", name="f")
        + call(index, '{"a":2}', id="c2", name="f")
        + chunk({}, **STOP)
    )
    message = accumulated(stream)
    assert [block.to_dict()["input"] for block in message.content] == [{"a": 1}, {"a": 2}]


def test_the_sdk_gets_thoughts_when_it_asks() -> None:
    message = accumulated(THOUGHTS, thinking={"type": "enabled", "budget_tokens": 50})
    assert [block.to_dict() for block in message.content] == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "Yes."},
    ]


def test_while_the_model_thinks_unseen_a_ping_shows_that_it_is_there() -> None:
    found = [event["type"] for event in events(translated(ask(), THOUGHTS))]

    assert found[:4] == ["message_start", "ping", "ping", "content_block_start"]
    assert accumulated(THOUGHTS).content[0].to_dict() == {"type": "text", "text": "Yes."}


@pytest.mark.parametrize("stream", [EMPTY, DONE])
def test_an_answer_without_words_is_an_empty_message(stream: bytes) -> None:
    assert [event["type"] for event in events(translated(ask(), stream))] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]


@given(st.data())
@pytest.mark.parametrize(
    "stream",
    [recorded("llamacpp_chat.sse"), recorded("vllm_chat.sse"), TOOLS, THOUGHTS],
    ids=["llama.cpp", "vLLM", "tools", "thoughts"],
)
def test_a_stream_is_translated_alike_however_it_is_cut(stream: bytes, data: st.DataObject) -> None:
    assert translated(ask(), stream, data.draw(cuts(stream))) == translated(ask(), stream)


said = st.one_of(
    st.text(max_size=3).map(lambda text: chunk({"content": text})),
    st.text(max_size=3).map(lambda text: chunk({"reasoning_content": text})),
    st.uuids().map(lambda name: call(0, "{}", id=str(name), name="f")),
    st.just(usage(1, 1)),
    st.just(b": still here\n\n"),
)


@given(st.lists(said, max_size=8), st.booleans())
def test_blocks_are_numbered_closed_and_never_nested(stream: list[bytes], shown: bool) -> None:
    thinking = {"type": "enabled" if shown else "disabled"}
    found = events(translated(ask(thinking=thinking), b"".join([*stream, chunk({}, **STOP), DONE])))

    assert [found[0]["type"], found[-2]["type"], found[-1]["type"]] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    open_block, closed = False, 0
    for event in found:
        if event["type"] == "content_block_start":
            assert (open_block, event["index"]) == (False, closed)
            open_block = True
        elif event["type"] in ("content_block_delta", "content_block_stop"):
            assert (open_block, event["index"]) == (True, closed)
        if event["type"] == "content_block_stop":
            open_block, closed = False, closed + 1
    assert not open_block


def test_the_end_is_told_as_soon_as_the_engine_is_done() -> None:
    translation = ask()

    sent = translation.feed(TOOLS)

    assert events(sent)[-1] == {"type": "message_stop"}
    assert translation.feed(b"data: more\n\n") == b""
    assert translation.finish() == b""


def test_a_stream_without_done_is_complete_when_the_engine_gave_a_reason() -> None:
    translation = ask()
    translation.feed(chunk({"content": "x"}, **STOP))

    end = translation.finish()

    assert end is not None
    assert events(end)[-1] == {"type": "message_stop"}


@pytest.mark.parametrize("stream", [b"", chunk({"content": "x"}), b'{"choices":[]}', b": loading\n\n"])
def test_a_stream_that_ends_too_early_has_no_end(stream: bytes) -> None:
    translation = ask()
    translation.feed(stream)
    with pytest.raises(UpstreamClosedError):
        translation.finish()


BROKEN = data({"error": {"message": "out of memory", "code": 500}})


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (BROKEN, "the engine's response ended with an error: out of memory"),
        (b"data: garbage\n\n", "the engine's response is invalid"),
        (call(0, '{"a":1}'), "without the name of a tool"),
        (
            call(0, '{"a":', id="c1", name="f") + call(1, "{}", id="c2", name="f") + call(0, "1}"),
            "continued a tool call after it had begun the next one",
        ),
    ],
)
def test_an_error_in_the_stream_is_raised(event: bytes, words: str) -> None:
    with pytest.raises(UpstreamInvalidError, match=words):
        ask().feed(event)


@given(st.data())
def test_what_came_before_an_error_is_told_before_it(data: st.DataObject) -> None:
    stream = chunk({"content": "x"}) + BROKEN
    translation = ask()
    sent = b""

    try:
        for piece in pieces(stream, data.draw(cuts(stream))):
            sent += translation.feed(piece)
    except UpstreamInvalidError as error:
        sent += translation.failure(error)

    assert [event["type"] for event in events(sent)] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "error",
    ]


def test_the_sdk_raises_when_a_stream_fails() -> None:
    translation = ask()
    sent = translation.feed(chunk({"content": "x"}))
    sent += translation.failure(UpstreamClosedError("llama3 has crashed"))

    def serve(_: Request) -> Response:
        return Response(200, content=sent, headers={"content-type": "text/event-stream"})

    with pytest.raises(APIStatusError, match="llama3 has crashed"):
        _with_sdk(serve, _final)
