import json

import pytest
from httpx import MockTransport, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from ollama import ChatResponse, Client, GenerateResponse, ResponseError
from tests.unit.dialects.streams import (
    DONE,
    STOP,
    call,
    chunk,
    completion,
    cuts,
    data,
    lines,
    recorded,
    shape,
    translated,
    usage,
)

from ai_proxy.core.errors import UpstreamClosedError, UpstreamInvalidError
from ai_proxy.dialects import ollama
from ai_proxy.dialects.translation import Translation
from ai_proxy.testing.fakes import FakeClock

HELLO = [{"role": "user", "content": "hello"}]
TOOLS = (
    chunk({"content": "Let me see."})
    + call(0, '{"city":', id="c1", name="weather")
    + call(0, '"Bern"}')
    + call(1, "", id="c2", name="now")
    + chunk({}, finish_reason="tool_calls")
    + usage(20, 10)
    + DONE
)
THOUGHTS = chunk({"reasoning_content": "Hm."}) + chunk({"content": "Yes."}) + chunk({}, **STOP) + DONE


def chat(clock: FakeClock | None = None, **request: object) -> Translation:
    body = {"model": "tiny:latest", "messages": HELLO, **request}
    return ollama.chat(json.dumps(body).encode(), clock or FakeClock())


def generate(clock: FakeClock | None = None, **request: object) -> Translation:
    body = {"model": "tiny:latest", "prompt": "hello", **request}
    return ollama.generate(json.dumps(body).encode(), clock or FakeClock())


@pytest.mark.parametrize("name", ["llamacpp_chat.sse", "vllm_chat.sse", "ollama_openai_chat.sse"])
def test_a_stream_has_the_shape_of_ollamas_own(name: str) -> None:
    own, ours = (
        lines(recorded("ollama_chat.ndjson").rstrip() + b"\n"),
        lines(translated(chat(), recorded(name))),
    )

    assert shape(ours[0]) == shape(own[0])
    assert shape(ours[-1]) == shape(own[-1])
    assert [line["done"] for line in ours] == [False] * (len(ours) - 1) + [True]
    assert {line["model"] for line in ours} == {"tiny:latest"}
    assert ours[-1]["done_reason"] == "length"


@pytest.mark.parametrize("name", ["llamacpp_chat.json", "vllm_chat.json"])
def test_a_whole_answer_has_the_shape_of_ollamas_own(name: str) -> None:
    own, ours = json.loads(recorded("ollama_chat.json")), json.loads(chat(stream=False).whole(recorded(name)))

    assert shape(ours) == shape(own)
    assert list(ours) == list(own)
    assert ours["model"] == "tiny:latest"


def test_the_text_arrives_piece_by_piece() -> None:
    found = lines(translated(chat(), recorded("llamacpp_chat.sse")))
    assert [ChatResponse.model_validate(line).message.content for line in found] == [
        " the",
        " quick",
        " brown",
        "",
    ]


def test_a_completion_is_told_as_a_response() -> None:
    streamed = lines(translated(generate(), recorded("vllm_chat.sse")))
    whole = json.loads(generate(stream=False, raw=True).whole(recorded("vllm_completion.json")))

    assert [GenerateResponse.model_validate(line).response for line in streamed] == ["c", "c", "c", "c", ""]
    assert whole["response"] == "wfuw"
    assert (whole["prompt_eval_count"], whole["eval_count"], whole["done_reason"]) == (5, 4, "length")
    assert "message" not in whole


def test_a_raw_completion_is_streamed() -> None:
    stream = (
        data({"choices": [{"index": 0, "text": "wf", "finish_reason": None}]})
        + data({"choices": [{"index": 0, "text": "uw", "finish_reason": "length"}]})
        + DONE
    )
    assert [line["response"] for line in lines(translated(generate(raw=True), stream))] == ["wf", "uw", ""]


async def test_durations_are_the_engines_where_it_tells() -> None:
    clock = FakeClock()
    translation = chat(clock)
    await clock.advance(2.0)

    last = lines(translated(translation, recorded("llamacpp_chat.sse")))[-1]

    assert (last["prompt_eval_count"], last["prompt_eval_duration"]) == (9, 392_000)
    assert (last["eval_count"], last["eval_duration"]) == (3, 467_000)
    assert (last["total_duration"], last["load_duration"]) == (2_000_000_000, 1_999_141_000)


async def test_durations_are_measured_where_the_engine_does_not_tell() -> None:
    clock = FakeClock()
    translation = chat(clock)
    await clock.advance(1.5)
    translation.feed(chunk({"content": "a"}))
    await clock.advance(0.5)

    last = lines(translated(translation, chunk({"content": "b"}, **STOP) + usage(9, 2) + DONE))[-1]

    assert {name: last[name] for name in last if "duration" in name} == {
        "total_duration": 2_000_000_000,
        "load_duration": 0,
        "prompt_eval_duration": 1_500_000_000,
        "eval_duration": 500_000_000,
    }


def test_clients_that_divide_by_the_duration_can() -> None:
    last = lines(translated(chat(), chunk({"content": "b"}, **STOP) + DONE))[-1]
    assert (last["total_duration"], last["eval_duration"]) == (0, 1)


def test_without_a_count_of_tokens_pieces_are_counted() -> None:
    stream = chunk({"content": "a"}) + chunk({"content": "b"}) + chunk({}, **STOP) + DONE
    assert lines(translated(chat(), stream))[-1]["eval_count"] == 2


def test_moments_are_told_in_utc() -> None:
    assert lines(translated(chat(), chunk({}, **STOP)))[0]["created_at"] == "2023-11-14T22:30:00.000000Z"


def test_tool_calls_are_told_whole_with_objects_for_arguments() -> None:
    text, calls, last = lines(translated(chat(), TOOLS))

    assert text["message"] == {"role": "assistant", "content": "Let me see."}
    assert calls["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Bern"}}},
            {"id": "c2", "function": {"name": "now", "arguments": {}}},
        ],
    }
    assert (calls["done"], last["done"], last["done_reason"]) == (False, True, "stop")
    assert ChatResponse.model_validate(calls).message.tool_calls is not None


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
def test_arguments_of_a_tool_without_end_are_an_error() -> None:
    translation = chat()
    translation.feed(call(0, id="call_1", name="now"))
    pieces = call(0, "x" * 1024 * 1024) * 20

    with pytest.raises(UpstreamInvalidError, match="tool calls"):
        translation.feed(pieces)


def test_tool_calls_of_a_whole_answer() -> None:
    function = {"name": "now", "arguments": "{}"}
    message: dict[str, object] = {"content": None, "tool_calls": [{"type": "function", "function": function}]}

    answer = json.loads(chat(stream=False).whole(completion(message)))

    assert answer["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "now", "arguments": {}}}],
    }


def test_thoughts_are_told_apart_unless_the_client_does_not_want_any() -> None:
    def thoughts(translation: Translation) -> list[object]:
        found = [ChatResponse.model_validate(line) for line in lines(translated(translation, THOUGHTS))]
        return [one.message.thinking or one.message.content for one in found]

    assert thoughts(chat()) == ["Hm.", "Yes.", ""]
    assert thoughts(chat(think=True)) == ["Hm.", "Yes.", ""]
    assert thoughts(chat(think=False)) == ["Yes.", ""]
    assert lines(translated(generate(), THOUGHTS))[0]["thinking"] == "Hm."


@given(st.data())
@pytest.mark.parametrize(
    "stream",
    [recorded("llamacpp_chat.sse"), recorded("ollama_openai_chat.sse"), TOOLS, THOUGHTS],
    ids=["llama.cpp", "Ollama", "tools", "thoughts"],
)
def test_a_stream_is_translated_alike_however_it_is_cut(stream: bytes, data: st.DataObject) -> None:
    assert translated(chat(), stream, data.draw(cuts(stream))) == translated(chat(), stream)


def test_a_stream_that_ends_too_early_has_no_last_line() -> None:
    translation = chat()
    translation.feed(chunk({"content": "x"}))

    with pytest.raises(UpstreamClosedError):
        translation.finish()
    assert (
        translation.failure(UpstreamClosedError("llama3 has crashed")) == b'{"error":"llama3 has crashed"}\n'
    )


@pytest.mark.parametrize("arguments", ["[1]", "nothing"])
def test_tool_calls_that_nobody_can_understand_are_an_error(arguments: str) -> None:
    translation = chat()
    translation.feed(call(0, arguments, id="c1", name="f") + chunk({}, **STOP))

    with pytest.raises(UpstreamInvalidError, match="'f' with arguments that are not a JSON object"):
        translation.finish()


@pytest.mark.parametrize("translation", [chat(), generate()], ids=["chat", "generate"])
def test_an_error_of_the_engine_is_told_as_a_text(translation: Translation) -> None:
    assert translation.refusal(500, b'{"error":{"message":"no room"}}') == b'{"error":"no room"}'


def serving(stream: bytes) -> Client:
    """The official client, with the proxy's translation for a server."""

    def serve(asked: Request) -> Response:
        translate = ollama.chat if asked.url.path == "/api/chat" else ollama.generate
        translation = translate(asked.content, FakeClock())
        return Response(200, content=translated(translation, stream) if translation.streamed else stream)

    return Client(host="http://proxy", transport=MockTransport(serve))


def test_the_official_client_understands_streams() -> None:
    with serving(recorded("llamacpp_chat.sse")) as client:
        said = [part.message.content for part in client.chat("tiny", HELLO, stream=True)]
        told = [part.response for part in client.generate("tiny", "hello", stream=True)]

    assert said == told == [" the", " quick", " brown", ""]


def test_the_official_client_raises_when_a_stream_fails() -> None:
    failed = chat().failure(UpstreamClosedError("llama3 has crashed"))
    transport = MockTransport(lambda _: Response(200, content=failed))

    with (
        Client(host="http://proxy", transport=transport) as client,
        pytest.raises(ResponseError, match="llama3 has crashed"),
    ):
        list(client.chat("tiny", HELLO, stream=True))
