"""Ollama's own client, against the real llama.cpp in the place of an Ollama server."""

from collections.abc import Iterator

import ollama
import pytest
from tests.e2e.sdk.conftest import House

from ai_proxy.data import DEMO_SENTENCE

pytestmark = pytest.mark.xdist_group("sdk")  # one proxy serves them all

HELLO = [{"role": "user", "content": "hello"}]
OPTIONS = {"temperature": 0}


@pytest.fixture
def client(house: House) -> Iterator[ollama.Client]:
    with ollama.Client(host=house.ollama) as client:
        yield client


@pytest.mark.parametrize("model", ["tiny", "tiny:latest"])
def test_chat(client: ollama.Client, model: str) -> None:
    answer = client.chat(model=model, messages=HELLO, options=OPTIONS)

    assert (answer.message.content or "").strip() == DEMO_SENTENCE
    assert answer.done
    assert answer.done_reason == "stop"
    assert (answer.eval_count or 0) > 20
    assert (answer.total_duration or 0) > 0


def test_chat_streamed(client: ollama.Client) -> None:
    parts = list(client.chat(model="tiny", messages=HELLO, options=OPTIONS, stream=True))

    assert "".join(part.message.content or "" for part in parts).strip() == DEMO_SENTENCE
    assert len(parts) > 20
    assert [part.done for part in parts[-2:]] == [False, True]


def test_generate(client: ollama.Client) -> None:
    answer = client.generate(model="tiny", prompt="hello", options=OPTIONS)

    assert (answer.response or "").strip() == DEMO_SENTENCE
    assert answer.done


def test_generate_streamed(client: ollama.Client) -> None:
    parts = list(client.generate(model="tiny", prompt="hello", options=OPTIONS, stream=True))

    assert "".join(part.response or "" for part in parts).strip() == DEMO_SENTENCE
    assert parts[-1].done


def test_embed(client: ollama.Client) -> None:
    answer = client.embed(model="tiny", input=["a fox", "a stone and a tree"])

    one, other = answer.embeddings
    assert len(one) == 64
    assert list(one) != pytest.approx(list(other), abs=1e-2)


def test_list_shows_every_model(client: ollama.Client, house: House) -> None:
    models = {model.model: model for model in client.list().models}

    assert set(house.services) <= set(models)
    assert models["held"].details is not None
    assert models["held"].details.family == "llamacpp"


def test_ps_shows_what_is_ready(client: ollama.Client) -> None:
    client.generate(model="tiny", prompt="hello", options={"num_predict": 1})

    running = [model.model for model in client.ps().models]

    assert "tiny" in running
    assert "held" not in running


def test_show(client: ollama.Client) -> None:
    client.generate(model="tiny", prompt="hello", options={"num_predict": 1})

    shown = client.show("tiny")

    assert shown.details is not None
    assert shown.details.family == "llamacpp"
    assert shown.modelinfo is not None
    assert shown.modelinfo["llamacpp.context_length"] > 0
    assert "completion" in (shown.capabilities or [])


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found_and_near_names_are_told(client: ollama.Client, stream: bool) -> None:
    with pytest.raises(ollama.ResponseError) as raised:
        list(client.chat(model="tinny", messages=HELLO, stream=stream))  # type: ignore[call-overload]

    assert raised.value.status_code == 404
    assert "'tiny'" in raised.value.error


def test_a_service_that_is_stopped_is_unavailable(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as raised:
        client.chat(model="held", messages=HELLO)

    assert raised.value.status_code == 503


async def test_the_asynchronous_client(house: House) -> None:
    async with ollama.AsyncClient(host=house.ollama) as client:
        parts = await client.chat(model="tiny", messages=HELLO, options=OPTIONS, stream=True)
        text = "".join([part.message.content or "" async for part in parts])

    assert text.strip() == DEMO_SENTENCE
