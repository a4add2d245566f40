"""LangChain's client of OpenAI's API, as an example of clients that are nobody's own."""

from collections.abc import AsyncIterator

import openai
import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr
from tests.e2e.sdk.conftest import House

from ai_proxy.data import DEMO_SENTENCE

pytestmark = pytest.mark.xdist_group("sdk")  # one proxy serves them all


@pytest.fixture
async def model(house: House) -> AsyncIterator[ChatOpenAI]:
    with openai.DefaultHttpxClient() as client:  # those it makes itself are never closed
        async with openai.DefaultAsyncHttpxClient() as async_client:
            yield ChatOpenAI(
                base_url=house.openai,
                api_key=SecretStr("none"),
                model="tiny",
                temperature=0,
                max_retries=0,
                http_client=client,
                http_async_client=async_client,
            )


def test_invoke(model: ChatOpenAI) -> None:
    message = model.invoke("hello")

    assert message.text.strip() == DEMO_SENTENCE
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] > 20


def test_stream(model: ChatOpenAI) -> None:
    chunks = [chunk.text for chunk in model.stream("hello")]

    assert "".join(chunks).strip() == DEMO_SENTENCE
    assert len(chunks) > 20


async def test_batch(model: ChatOpenAI) -> None:
    messages = await model.abatch(["hello"] * 8)

    assert {message.text.strip() for message in messages} == {DEMO_SENTENCE}


def test_tools_are_taken(model: ChatOpenAI) -> None:
    @tool
    def look() -> str:
        """Look out of the window."""
        return "rain"

    message = model.bind_tools([look]).invoke("hello")

    assert message.text.strip() == DEMO_SENTENCE


async def test_embeddings(house: House) -> None:
    with openai.DefaultHttpxClient() as client:
        async with openai.DefaultAsyncHttpxClient() as async_client:
            embeddings = OpenAIEmbeddings(
                base_url=house.openai,
                api_key=SecretStr("none"),
                model="tiny",
                check_embedding_ctx_length=False,  # or it would count tokens as OpenAI's models do
                http_client=client,
                http_async_client=async_client,
            )
            one, other = embeddings.embed_documents(["a fox", "a stone and a tree"])

    assert len(one) == len(other) == 64
    assert one != pytest.approx(other, abs=1e-2)
