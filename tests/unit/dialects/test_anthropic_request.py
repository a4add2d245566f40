import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParams
from pydantic import TypeAdapter
from tests.unit.dialects.values import bodies, near_misses

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import InvalidRequestError
from ai_proxy.dialects import anthropic

OPENAI: TypeAdapter[CompletionCreateParams] = TypeAdapter(CompletionCreateParams)
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def asked(**request: object) -> dict[str, object]:
    """What an engine is asked for a request, which OpenAI's own types have to accept."""
    body = anthropic.translate(json.dumps({"model": "m", "max_tokens": 9, **request}).encode()).request
    OPENAI.validate_json(body)
    found: dict[str, object] = json.loads(body)
    return found


def messages(*content: object, role: str = "user") -> object:
    """The messages an engine is asked with, for one message of some blocks."""
    return asked(messages=[{"role": role, "content": list(content)}])["messages"]


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def test_a_plain_request_keeps_its_words() -> None:
    translation = anthropic.translate(
        b'{"model":"m","max_tokens":64,"messages":[{"role":"user","content":"hello"}]}'
    )

    assert translation.path == Endpoint.CHAT
    assert not translation.streamed
    assert json.loads(translation.request) == {
        "model": "m",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "hello"}],
    }


def test_a_stream_is_asked_to_tell_its_tokens() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hello"}],"stream":true}'

    translation = anthropic.translate(body)

    assert translation.streamed
    assert translation.media_type == b"text/event-stream"
    request = json.loads(translation.request)
    assert (request["stream"], request["stream_options"]) == (True, {"include_usage": True})


def test_parameters_get_the_names_that_openai_has_for_them() -> None:
    request = asked(
        messages=[{"role": "user", "content": "hello"}],
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["END"],
        metadata={"user_id": "u1"},
        output_config={"format": {"type": "json_schema", "schema": WEATHER}},
    )

    del request["messages"]
    assert request == {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": ["END"],
        "user": "u1",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": WEATHER, "strict": True},
        },
    }


@pytest.mark.parametrize("system", ["Be brief.\nBe kind.", [text("Be brief."), text("Be kind.")]])
def test_the_system_prompt_comes_first(system: object) -> None:
    request = asked(system=system, messages=[{"role": "user", "content": "hello"}])
    assert request["messages"] == [
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": "hello"},
    ]


def test_images_become_urls() -> None:
    inline = {"type": "base64", "media_type": "image/png", "data": "iVBORw0"}
    remote = {"type": "url", "url": "https://example.com/a.png"}

    assert messages(
        text("What?"), {"type": "image", "source": inline}, {"type": "image", "source": remote}
    ) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            ],
        }
    ]


def test_an_answer_of_earlier_keeps_its_tool_calls_and_loses_its_thoughts() -> None:
    assert messages(
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        text("Let me see."),
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}},
        {"type": "tool_use", "id": "t2", "name": "now", "input": {}},
        role="assistant",
    ) == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
                },
                {"id": "t2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            ],
        }
    ]


def test_results_of_tools_follow_their_calls_before_what_the_user_says() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}

    assert messages(
        {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
        {"type": "tool_result", "tool_use_id": "t2", "content": [text("a"), image, text("b")]},
        {"type": "tool_result", "tool_use_id": "t3", "content": "no such city", "is_error": True},
        {"type": "tool_result", "tool_use_id": "t4"},
        text("Well?"),
    ) == [
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "t2", "content": "a\nb"},
        {"role": "tool", "tool_call_id": "t3", "content": "Error: no such city"},
        {"role": "tool", "tool_call_id": "t4", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "text", "text": "Well?"},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "weather"},
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        ),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
    ],
)
def test_tools_and_their_choice(choice: object, meant: dict[str, object]) -> None:
    request = asked(
        messages=[{"role": "user", "content": "hello"}],
        tools=[{"name": "weather", "description": "Tells it.", "input_schema": WEATHER}],
        tool_choice=choice,
    )

    assert {name: request[name] for name in request if "tool" in name} == meant | {
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "Tells it.", "parameters": WEATHER},
            }
        ]
    }


def test_a_choice_without_tools_is_left_out() -> None:
    request = asked(messages=[{"role": "user", "content": "x"}], tools=[], tool_choice={"type": "auto"})
    assert set(request) == {"model", "messages", "max_tokens"}


USER = '{"model":"m","messages":[{"role":"user","content":"x"}]'


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ("", "", "the body is not JSON: Input data was truncated"),
        ("{bad", "", "the body is not JSON: "),
        ("[]", "", "the body: expected object, got array"),
        ('{"messages":[]}', "model", "model: is required"),
        ('{"model":"m"}', "messages", "messages: is required"),
        ('{"model":"m","messages":[]}', "messages", "messages: at least one is required"),
        ('{"model":7,"messages":[]}', "model", "model: expected str, got int"),
        ('{"model":"m","messages":"x"}', "messages", "messages: expected array, got str"),
        (
            '{"model":"m","messages":[{"role":"user","content":[{"type":"video"}]}]}',
            "messages[0].content[0].type",
            "'video' is not a supported value",
        ),
        (
            '{"model":"m","messages":[{"role":"robot","content":"x"}]}',
            "messages[0].role",
            "'robot' is not a supported value",
        ),
        (
            '{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"thinking"}]}]}',
            "messages[0].content[1]",
            "a block of type thinking is not allowed in a message with the role user",
        ),
        (
            '{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_result","tool_use_id":"t"}]}]}',
            "messages[0].content[0]",
            "a block of type tool_result is not allowed in a message with the role assistant",
        ),
        (USER + ',"max_tokens":"many"}', "max_tokens", "max_tokens: expected int | null, got str"),
        (USER + ',"tools":[{"name":"t","input_schema":[]}]}', "tools[0].input_schema", "got array"),
        (
            USER + ',"tools":[{"name":"web_search","type":"web_search_20250305"}]}',
            "tools[0].input_schema",
            "does not have tools that Anthropic runs itself, such as web_search_20250305",
        ),
        (
            USER + ',"tools":[{"name":"t","input_schema":{}}],"tool_choice":{"type":"tool"}}',
            "tool_choice.name",
            "is required",
        ),
        (USER + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}", "", "nested too deeply"),
    ],
)
def test_bad_input_is_refused_with_its_place(body: str, param: str, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        anthropic.translate(body.encode())

    assert caught.value.param == param
    assert words in caught.value.detail


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="not JSON"):
        anthropic.translate(USER.encode() + b',"tools":[{"name":"t","input_schema":{"x":"\xff"}}]}')


REQUEST = {
    "model": "m",
    "system": [text("Be brief.")],
    "messages": [
        {"role": "user", "content": [text("x"), {"type": "image", "source": {"type": "url", "url": "u"}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [text("y")]}]},
    ],
    "tools": [{"name": "n", "input_schema": WEATHER}],
    "tool_choice": {"type": "tool", "name": "n", "disable_parallel_tool_use": True},
    "metadata": {"user_id": "u"},
    "stream": True,
    "max_tokens": 1,
    "thinking": {"type": "enabled", "budget_tokens": 1},
}


@given(bodies | near_misses(REQUEST).map(lambda value: json.dumps(value).encode()))
def test_any_input_is_translated_or_refused(body: bytes) -> None:
    try:
        translation = anthropic.translate(body)
    except InvalidRequestError:
        return
    assert json.loads(translation.request)["model"] == json.loads(body)["model"]


@given(
    st.dictionaries(
        st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.none()
    )
)
def test_the_input_of_a_tool_is_passed_on_to_the_last_digit(value: dict[str, object]) -> None:
    block = {"type": "tool_use", "id": "t", "name": "n", "input": value}
    request = {"model": "m", "messages": [{"role": "assistant", "content": [block]}]}

    asked = json.loads(anthropic.translate(json.dumps(request).encode()).request)

    assert json.loads(asked["messages"][0]["tool_calls"][0]["function"]["arguments"]) == value
