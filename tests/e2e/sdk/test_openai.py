"""OpenAI's own client, against the real llama.cpp."""

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.e2e.sdk.conftest import House

from ai_proxy.data import DEMO_SENTENCE

pytestmark = pytest.mark.xdist_group("sdk")  # one proxy serves them all

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
PICTURE: list[ChatCompletionMessageParam] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ],
    }
]


@pytest.fixture
def client(house: House) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=house.openai, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", ["tiny", "tiny/tiny", "flm://llamacpp/tiny"])
def test_chat(client: openai.OpenAI, model: str) -> None:
    completion = client.chat.completions.create(model=model, messages=HELLO, temperature=0)

    (choice,) = completion.choices
    assert (choice.message.content or "").strip() == DEMO_SENTENCE
    assert choice.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 20


def test_chat_streamed(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="tiny", messages=HELLO, temperature=0, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)

    words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(words).strip() == DEMO_SENTENCE
    assert len([word for word in words if word]) > 20
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 20


def test_completion(client: openai.OpenAI) -> None:
    completion = client.completions.create(model="tiny", prompt="hello", temperature=0, max_tokens=100)

    assert completion.choices[0].text.strip() == DEMO_SENTENCE


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="tiny", input=["a fox", "a fox", "a stone and a tree"])

    one, again, other = (item.embedding for item in answer.data)
    assert len(one) == 64
    assert one == pytest.approx(again, abs=1e-4)
    assert one != pytest.approx(other, abs=1e-2)
    assert answer.usage.prompt_tokens > 0


def test_response(client: openai.OpenAI) -> None:
    response = client.responses.create(model="tiny", input="hello", temperature=0)

    assert response.status == "completed"
    assert response.output_text.strip() == DEMO_SENTENCE


def test_response_streamed(client: openai.OpenAI) -> None:
    with client.responses.create(model="tiny", input="hello", temperature=0, stream=True) as stream:
        events = list(stream)

    words = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(words).strip() == DEMO_SENTENCE
    assert events[-1].type == "response.completed"


def test_models_are_listed_and_shown(client: openai.OpenAI, house: House) -> None:
    listed = {model.id: model for model in client.models.list()}

    assert set(house.services) <= set(listed)
    assert listed["held"].owned_by == "llamacpp"
    assert client.models.retrieve("tiny").id == "tiny"
    assert client.models.retrieve("tiny/tiny").id == "tiny/tiny"


def test_a_tool_is_offered_and_the_answer_is_an_answer(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        temperature=0,
        tools=[
            {
                "type": "function",
                "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
            }
        ],
    )

    assert (completion.choices[0].message.content or "").strip() == DEMO_SENTENCE


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found_and_near_names_are_told(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="tinny", messages=HELLO, stream=stream)

    assert raised.value.code == "model_not_found"
    assert "'tiny'" in raised.value.message
    assert raised.value.request_id


def test_an_unknown_model_cannot_be_retrieved(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("tinny")

    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("body", [{"messages": HELLO}, {"model": 7, "messages": HELLO}, {"model": None}, []])
def test_a_body_without_a_model_is_a_bad_request(client: openai.OpenAI, body: object) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.post("/chat/completions", body=body, cast_to=object)

    assert raised.value.type == "invalid_request_error"


def test_what_the_engine_does_not_take_is_a_bad_request_in_its_own_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.post("/chat/completions", body={"model": "tiny", "messages": "hello"}, cast_to=object)

    assert "messages" in raised.value.message


def test_a_picture_for_a_model_that_reads_only_text_is_refused(client: openai.OpenAI) -> None:
    client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1)  # what it takes is known now

    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client.chat.completions.create(model="tiny", messages=PICTURE)

    assert raised.value.code == "unsupported_modalities"


def test_a_path_that_nothing_answers_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.post("/nope", body={}, cast_to=object)

    assert raised.value.code == "unknown_path"


def test_an_endpoint_that_the_engine_lacks_is_told_with_the_engines_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        client.images.generate(model="tiny", prompt="a fox")

    assert raised.value.status_code == 501
    assert raised.value.code == "not_supported_by_engine"
    assert "llama.cpp" in raised.value.message


def test_a_service_that_is_stopped_is_unavailable(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(model="held", messages=HELLO)

    assert raised.value.status_code == 503
    assert raised.value.code == "service_stopped"


def test_a_backend_that_does_not_answer_is_a_timeout(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="stuck", messages=HELLO, timeout=1.0)


def test_a_backend_that_dies_in_the_middle_is_an_error_in_the_stream(client: openai.OpenAI) -> None:
    words: list[str | None] = []

    def listen() -> None:
        with client.chat.completions.create(model="fragile", messages=HELLO, stream=True) as stream:
            words.extend(chunk.choices[0].delta.content for chunk in stream)

    with pytest.raises(openai.APIError) as raised:
        listen()

    assert words == ["word-1 ", "word-2 ", "word-3 ", "word-4 ", "word-5 "]
    assert raised.value.code == "upstream_closed"


async def test_a_hundred_streams_at_once_are_all_whole(house: House) -> None:
    async with openai.AsyncOpenAI(
        base_url=house.openai, api_key="none", max_retries=0, timeout=120
    ) as client:

        async def one() -> str:
            stream = await client.chat.completions.create(
                model="tiny", messages=HELLO, temperature=0, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        texts = await asyncio.gather(*(one() for _ in range(100)))

    assert {text.strip() for text in texts} == {DEMO_SENTENCE}


async def test_a_stream_that_the_client_leaves_does_not_harm_the_next(house: House) -> None:
    async with openai.AsyncOpenAI(base_url=house.openai, api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="tiny", messages=HELLO, temperature=0, stream=True
        )
        await anext(aiter(stream))
        await stream.close()

        completion = await client.chat.completions.create(model="tiny", messages=HELLO, temperature=0)

    assert (completion.choices[0].message.content or "").strip() == DEMO_SENTENCE
