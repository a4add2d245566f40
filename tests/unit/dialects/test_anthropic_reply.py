import json

import pytest
from anthropic.types import Message
from tests.unit.dialects.streams import completion, recorded

from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.dialects import anthropic
from ai_proxy.dialects.translation import ChatTranslation


def ask(**request: object) -> ChatTranslation:
    asked = {"model": "claude", "messages": [{"role": "user", "content": "hello"}], **request}
    return anthropic.translate(json.dumps(asked).encode(), "r1")


def answer(body: bytes, **request: object) -> Message:
    """A whole answer, as the official SDK understands it."""
    return Message.model_validate_json(ask(**request).whole(body), strict=True)


def tool_call(name: str | None, arguments: str, id: str | None = "c1") -> dict[str, object]:  # noqa: A002
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_llamacpps_answer_becomes_a_message() -> None:
    message = answer(recorded("llamacpp_chat.json"))

    assert message.to_dict(exclude_unset=False, exclude_none=True) == {
        "id": "msg_mKh5sstDcbsgAYBPNrumKn4ANcU596qu",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [
            {
                "type": "text",
                "text": " the quick brown fox jumps over a lazy dog while seven bright stars hum one quiet "
                "song about small models that run on old machines and never tell what they dream",
            }
        ],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 9,
            "output_tokens": 32,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def test_vllms_answer_that_was_cut_says_so() -> None:
    message = answer(recorded("vllm_chat.json"))
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == (
        "max_tokens",
        8,
        4,
    )


def test_tokens_from_the_cache_count_apart() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    body = json.dumps(json.loads(completion({"content": "x"})) | {"usage": usage}).encode()

    found = answer(body).usage

    assert (found.input_tokens, found.cache_read_input_tokens, found.output_tokens) == (1, 8, 3)


def test_tool_calls_follow_the_text() -> None:
    calls = [tool_call("weather", '{"city": "Bern"}'), tool_call("now", "", id=None)]
    message = answer(completion({"content": "Let me see.", "tool_calls": calls}, finish_reason="tool_calls"))

    assert [block.to_dict() for block in message.content] == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bern"}},
        {"type": "tool_use", "id": "toolu_1_1", "name": "now", "input": {}},
    ]
    assert message.stop_reason == "tool_use"


def test_tool_calls_are_the_reason_also_where_the_engine_says_stop() -> None:
    assert answer(completion({"tool_calls": [tool_call("now", "{}")]})).stop_reason == "tool_use"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_are_shown_to_those_who_ask(name: str) -> None:
    body = completion({name: "Hm.", "content": "Yes."})

    shown = answer(body, thinking={"type": "enabled", "budget_tokens": 1024})
    hidden = answer(body)

    assert [block.type for block in shown.content] == ["thinking", "text"]
    assert [block.type for block in hidden.content] == ["text"]
    assert [block.type for block in answer(body, thinking={"type": "disabled"}).content] == ["text"]


@pytest.mark.parametrize(
    ("choice", "reason", "sequence"),
    [
        ({"finish_reason": "stop"}, "end_turn", None),
        ({"finish_reason": "stop", "stop_reason": "END"}, "stop_sequence", "END"),
        ({"finish_reason": "stop", "stop_reason": 128009}, "end_turn", None),
        ({"finish_reason": "length"}, "max_tokens", None),
        ({"finish_reason": "content_filter"}, "refusal", None),
        ({"finish_reason": "of its own"}, "end_turn", None),
        ({"finish_reason": None}, "end_turn", None),
    ],
)
def test_the_reason_of_the_end_is_told(choice: dict[str, object], reason: str, sequence: str | None) -> None:
    message = answer(completion({"content": "x"}, **choice), stop_sequences=["END"])
    assert (message.stop_reason, message.stop_sequence) == (reason, sequence)


def test_a_tool_call_that_was_cut_is_left_out() -> None:
    message = answer(completion({"tool_calls": [tool_call("now", '{"a":')]}, finish_reason="length"))
    assert (message.content, message.stop_reason) == ([], "max_tokens")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "response is invalid"),
        (b"data: {}\n\n", "response is invalid"),
        (b"[]", "response is invalid"),
        (b"[" * 100_000, "response is invalid"),
        (b"{}", "no choices"),
        (b'{"choices":[]}', "no choices"),
        (b'{"choices":[{"message":{"content":7}}]}', "response is invalid"),
        (b'{"error":{"message":"out of memory"}}', "response ended with an error: out of memory"),
        (
            completion({"tool_calls": [tool_call("now", "[1]")]}),
            "with arguments that are not a JSON object",
        ),
        (completion({"tool_calls": [tool_call(None, "{}")]}), "without the name of a tool"),
    ],
)
def test_an_answer_that_is_none_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(UpstreamInvalidError, match=words):
        ask().whole(body)


def test_an_error_of_the_engine_is_told_in_anthropics_shape() -> None:
    body = b'{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}'
    assert json.loads(ask().refusal(404, body)) == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "The model `x` does not exist."},
        "request_id": "r1",
    }
