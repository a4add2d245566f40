import json

import pytest
from ollama import EmbedResponse
from tests.unit.dialects.streams import recorded, shape

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.dialects import ollama
from ai_proxy.dialects.translation import Translation
from ai_proxy.testing.fakes import FakeClock


def embed(clock: FakeClock | None = None, **request: object) -> Translation:
    return ollama.embed(json.dumps({"model": "emb", **request}).encode(), clock or FakeClock())


def answer(*vectors: object) -> bytes:
    found = [{"object": "embedding", "index": n, "embedding": v} for n, v in enumerate(vectors)]
    return json.dumps({"object": "list", "data": found[::-1], "usage": {"prompt_tokens": 5}}).encode()


@pytest.mark.parametrize("given", ["a", ["a"], ["a", "b"]])
def test_one_text_or_several_are_embedded(given: str | list[str]) -> None:
    translation = embed(input=given, dimensions=2)

    assert translation.path == Endpoint.EMBEDDINGS
    assert not translation.streamed
    assert json.loads(translation.request) == {
        "model": "emb",
        "input": given if isinstance(given, list) else [given],
        "dimensions": 2,
        "encoding_format": "float",
    }


def test_the_answer_has_the_shape_of_ollamas_own() -> None:
    ours = json.loads(embed(input="hello world").whole(recorded("llamacpp_embeddings.json")))

    assert shape(ours) == shape(json.loads(recorded("ollama_embed.json")))
    assert list(ours) == list(json.loads(recorded("ollama_embed.json")))
    assert ours["prompt_eval_count"] == 7
    assert EmbedResponse.model_validate(ours).embeddings[0][0] == 0.7897287011146545


async def test_embeddings_come_in_the_order_of_the_texts() -> None:
    clock = FakeClock()
    translation = embed(clock, input=["a", "b"])
    await clock.advance(0.5)

    assert json.loads(translation.whole(answer([1, 2.50], [3]))) == {
        "model": "emb",
        "embeddings": [[1, 2.5], [3]],
        "total_duration": 500_000_000,
        "load_duration": 0,
        "prompt_eval_count": 5,
    }


@pytest.mark.parametrize("given", ["", [], None])
def test_nothing_to_embed_only_loads_the_model(given: object) -> None:
    translation = embed(input=given)

    assert json.loads(translation.request)["input"] == ["."]
    assert json.loads(translation.whole(answer([1])))["embeddings"] == []


def test_the_older_path_embeds_one_prompt() -> None:
    translation = ollama.embeddings(b'{"model":"emb","prompt":"a"}')
    load = ollama.embeddings(b'{"model":"emb"}')

    assert json.loads(translation.request)["input"] == ["a"]
    assert translation.whole(answer([1, 2])) == b'{"embedding":[1, 2]}'
    assert load.whole(answer([1, 2])) == b'{"embedding":[]}'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"garbage", "response is invalid"),
        (b"{}", "required field `data`"),
        (answer([1], [2]), "2 embeddings instead of 1"),
        (answer("AACAPw=="), "not lists of numbers"),
        (b'{"error":{"message":"no room"}}', "no room"),
    ],
)
def test_an_answer_that_is_none_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(UpstreamInvalidError, match=words):
        embed(input="a").whole(body)


def test_an_error_of_the_engine_is_told_as_a_text() -> None:
    body = b'{"error":{"message":"This server does not support embeddings"}}'
    assert embed(input="a").refusal(501, body) == b'{"error":"This server does not support embeddings"}'
