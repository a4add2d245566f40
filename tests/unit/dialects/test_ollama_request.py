import json
from collections.abc import Callable

import pytest
from hypothesis import given
from openai.types.chat.completion_create_params import CompletionCreateParams
from pydantic import TypeAdapter
from tests.unit.dialects.values import bodies, near_misses

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import InvalidRequestError
from ai_proxy.dialects import ollama
from ai_proxy.dialects.translation import Translation
from ai_proxy.testing.fakes import FakeClock

OPENAI: TypeAdapter[CompletionCreateParams] = TypeAdapter(CompletionCreateParams)
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
HELLO = [{"role": "user", "content": "hello"}]


def chat(**request: object) -> Translation:
    return ollama.chat(json.dumps({"model": "m", **request}).encode(), FakeClock())


def generate(**request: object) -> Translation:
    return ollama.generate(json.dumps({"model": "m", **request}).encode(), FakeClock())


def asked(translation: Translation) -> dict[str, object]:
    """What an engine is asked, which OpenAI's own types have to accept where it is a chat."""
    if translation.path == Endpoint.CHAT:
        OPENAI.validate_json(translation.request)
    found: dict[str, object] = json.loads(translation.request)
    return found


def test_a_chat_is_a_stream_unless_the_client_says_no() -> None:
    for request in ({}, {"stream": None}, {"stream": True}):
        translation = chat(messages=HELLO, **request)
        assert (translation.streamed, translation.media_type) == (True, b"application/x-ndjson")
        assert asked(translation)["stream_options"] == {"include_usage": True}

    whole = chat(messages=HELLO, stream=False)
    assert not whole.streamed
    assert asked(whole) == {"model": "m", "messages": HELLO}


def test_options_get_the_names_that_engines_have_for_them() -> None:
    options = {
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "typical_p": 0.7,
        "seed": 42,
        "num_predict": 7,
        "stop": ["END"],
        "repeat_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "num_ctx": 8192,
        "num_gpu": 1,
    }

    request = asked(chat(messages=HELLO, stream=False, options=options, keep_alive="5m"))

    del request["messages"]
    assert request == {
        "model": "m",
        "temperature": 0.0,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "typical_p": 0.7,
        "seed": 42,
        "max_tokens": 7,
        "stop": ["END"],
        "repeat_penalty": 1.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
    }


@pytest.mark.parametrize("limit", [-1, -2, 0])
def test_no_limit_of_tokens_is_not_asked_for(limit: int) -> None:
    assert "max_tokens" not in asked(chat(messages=HELLO, options={"num_predict": limit}))


@pytest.mark.parametrize(
    ("form", "meant"),
    [
        ("json", {"type": "json_object"}),
        (
            WEATHER,
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": WEATHER, "strict": True}},
        ),
        ("", None),
        (None, None),
    ],
)
def test_the_form_of_the_answer(form: object, meant: object) -> None:
    assert asked(chat(messages=HELLO, format=form)).get("response_format") == meant
    assert asked(generate(prompt="hello", format=form)).get("response_format") == meant


@pytest.mark.parametrize(
    ("think", "meant"),
    [
        (True, {"chat_template_kwargs": {"enable_thinking": True}}),
        (False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("high", {"reasoning_effort": "high"}),
        (None, {}),
    ],
)
def test_how_much_the_model_is_to_think(think: object, meant: dict[str, object]) -> None:
    assert asked(chat(messages=HELLO, stream=False, think=think)) == {
        "model": "m",
        "messages": HELLO,
        **meant,
    }


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("iVBORw0KGgoAAAA", "png"),
        ("/9j/4AAQ", "jpeg"),
        ("R0lGODlh", "gif"),
        ("UklGRiQ", "webp"),
        ("x", "png"),
    ],
)
def test_images_become_urls(image: str, kind: str) -> None:
    content = [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{image}"}},
    ]

    said = {"role": "user", "content": content}

    assert asked(chat(messages=[{"role": "user", "content": "What?", "images": [image]}]))["messages"] == [
        said
    ]
    assert asked(generate(prompt="What?", images=[image]))["messages"] == [said]


def test_results_of_tools_are_matched_with_their_calls() -> None:
    calls = [{"function": {"name": name, "arguments": {"city": "Bern"}}} for name in ("weather", "time")]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]

    request = asked(
        chat(
            tools=tools,
            messages=[
                {"role": "assistant", "content": "", "tool_calls": calls},
                {"role": "tool", "tool_name": "time", "content": "noon"},
                {"role": "tool", "tool_name": "weather", "content": "sunny"},
                {"role": "assistant", "content": "", "tool_calls": [{"id": "c9", **calls[0]}]},
                {"role": "tool", "tool_call_id": "c9", "content": "rain"},
                {"role": "tool", "content": "of a call that nobody knows"},
            ],
        )
    )

    assert request["tools"] == tools
    messages = request["messages"]
    assert isinstance(messages, list)
    assert messages[0]["tool_calls"][1] == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "time", "arguments": '{"city":"Bern"}'},
    }
    assert [m.get("tool_call_id") for m in messages] == [None, "call_1", "call_0", None, "c9", "c9"]


def test_a_prompt_is_what_the_user_says_in_a_chat() -> None:
    translation = generate(prompt="hello", system="Be brief.", stream=False)

    assert translation.path == Endpoint.CHAT
    assert asked(translation) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
    }


def test_a_raw_prompt_or_one_with_a_suffix_is_completed_as_it_stands() -> None:
    raw = generate(prompt="[INST] hello [/INST]", raw=True, stream=False)
    middle = generate(prompt="def f(", suffix="return x", stream=False)

    assert (raw.path, middle.path) == (Endpoint.COMPLETIONS, Endpoint.COMPLETIONS)
    assert asked(raw) == {"model": "m", "prompt": "[INST] hello [/INST]"}
    assert asked(middle) == {"model": "m", "prompt": "def f(", "suffix": "return x"}


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"{bad", "", "the body is not JSON: "),
        (b"{}", "model", "model: is required"),
        (b'{"model":"m","messages":{}}', "messages", "messages: expected array | null, got object"),
        (b'{"model":"m","messages":[{}]}', "messages[0].role", "is required"),
        (b'{"model":"m","messages":[{"role":"user","content":7}]}', "messages[0].content", "got int"),
        (b'{"model":"m","format":"xml"}', "format", "'xml' is not a supported value"),
        (b'{"model":"m","options":{"temperature":"hot"}}', "options.temperature", "got str"),
        (b'{"model":"m","tools":[1]}', "tools[0]", "expected object, got int"),
    ],
)
def test_bad_input_is_refused_with_its_place(body: bytes, param: str, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ollama.chat(body, FakeClock())

    assert caught.value.param == param
    assert words in caught.value.detail


REQUEST: dict[str, object] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "x", "images": ["y"]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "n", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "z", "tool_name": "n"},
    ],
    "prompt": "x",
    "input": ["x"],
    "images": ["y"],
    "tools": [{"type": "function"}],
    "format": {"type": "object"},
    "options": {"seed": 1, "stop": ["x"], "num_predict": 1},
    "stream": True,
    "think": True,
    "keep_alive": 0,
}


CLOCK = FakeClock()


@given(bodies | near_misses(REQUEST).map(lambda value: json.dumps(value).encode()))
@pytest.mark.parametrize(
    "translate",
    [
        lambda body: ollama.chat(body, CLOCK),
        lambda body: ollama.generate(body, CLOCK),
        lambda body: ollama.embed(body, CLOCK),
        ollama.embeddings,
    ],
    ids=["chat", "generate", "embed", "embeddings"],
)
def test_any_input_is_translated_or_refused(translate: Callable[[bytes], Translation], body: bytes) -> None:
    try:
        translation = translate(body)
    except InvalidRequestError:
        return
    assert json.loads(translation.request)["model"] == json.loads(body)["model"]


@given(bodies | near_misses(REQUEST).map(lambda value: json.dumps(value).encode()))
def test_any_input_is_to_unload_something_not_to_unload_or_refused(body: bytes) -> None:
    try:
        unload = ollama.unload("/api/chat", body, CLOCK)
    except InvalidRequestError:
        return
    assert unload is None or unload.model == json.loads(body)["model"]
