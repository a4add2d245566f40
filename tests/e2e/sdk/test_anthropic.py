"""Anthropic's own client: against the real llama.cpp, and an engine that knows only chat completions."""

from collections.abc import Iterator

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam
from tests.e2e.sdk.conftest import House

from ai_proxy.data import DEMO_SENTENCE

pytestmark = pytest.mark.xdist_group("sdk")  # one proxy serves them all

HELLO: list[MessageParam] = [{"role": "user", "content": "hello"}]
LOOK: list[ToolParam] = [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
GREEDY = {"temperature": 0}
"""Of the API, but no longer of the client's own parameters."""
ANSWERS = [
    pytest.param("tiny", DEMO_SENTENCE, id="passed on"),
    pytest.param("plain", " ".join(f"word-{number}" for number in range(1, 9)), id="translated"),
]


@pytest.fixture
def client(house: House) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=house.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("model", "sentence"), ANSWERS)
def test_message(client: anthropic.Anthropic, model: str, sentence: str) -> None:
    message = client.messages.create(model=model, max_tokens=100, extra_body=GREEDY, messages=HELLO)

    (block,) = message.content
    assert block.type == "text"
    assert block.text.strip() == sentence
    assert message.role == "assistant"
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize(("model", "sentence"), ANSWERS)
def test_message_streamed(client: anthropic.Anthropic, model: str, sentence: str) -> None:
    with client.messages.stream(model=model, max_tokens=100, extra_body=GREEDY, messages=HELLO) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()

    assert "".join(pieces).strip() == sentence
    assert len(pieces) >= 8
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize(("model", "sentence"), ANSWERS)
def test_tools_are_taken(client: anthropic.Anthropic, model: str, sentence: str) -> None:
    message = client.messages.create(
        model=model, max_tokens=100, extra_body=GREEDY, messages=HELLO, tools=LOOK
    )

    assert [block.text.strip() for block in message.content if block.type == "text"] == [sentence]


def test_the_end_of_the_room_for_an_answer_is_told(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="tiny", max_tokens=3, extra_body=GREEDY, messages=HELLO)

    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 3


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    count = client.messages.count_tokens(model="tiny", messages=HELLO)

    assert count.input_tokens > 0


def test_an_unknown_model_is_not_found_and_near_names_are_told(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as raised:
        client.messages.create(model="tinny", max_tokens=100, messages=HELLO)

    assert "'tiny'" in str(raised.value)


def test_a_service_that_is_stopped_is_unavailable(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.create(model="held", max_tokens=100, messages=HELLO)

    assert raised.value.status_code == 503
