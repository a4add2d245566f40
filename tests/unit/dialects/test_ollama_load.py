import json

import pytest
from tests.unit.dialects.streams import recorded

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.dialects import ollama
from ai_proxy.testing.fakes import FakeClock

MOMENT = "2023-11-14T22:30:00.000000Z"


@pytest.mark.parametrize("body", [b'{"model":"m"}', b'{"model":"m","messages":[],"stream":true}'])
def test_a_chat_without_messages_loads_the_model_and_says_nothing(body: bytes) -> None:
    translation = ollama.chat(body, FakeClock())

    assert translation.path == Endpoint.CHAT
    assert not translation.streamed
    assert json.loads(translation.request) == {
        "model": "m",
        "messages": [{"role": "user", "content": "."}],
        "max_tokens": 1,
    }
    assert json.loads(translation.whole(recorded("llamacpp_chat.json"))) == {
        "model": "m",
        "created_at": MOMENT,
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "load",
    }


@pytest.mark.parametrize("body", [b'{"model":"m"}', b'{"model":"m","prompt":"","raw":true}'])
def test_a_completion_without_a_prompt_loads_the_model_and_says_nothing(body: bytes) -> None:
    translation = ollama.generate(body, FakeClock())
    assert json.loads(translation.whole(recorded("vllm_chat.json"))) == {
        "model": "m",
        "created_at": MOMENT,
        "response": "",
        "done": True,
        "done_reason": "load",
    }


def test_a_model_that_cannot_be_loaded_is_an_error() -> None:
    translation = ollama.generate(b'{"model":"m"}', FakeClock())

    assert translation.refusal(500, b'{"error":{"message":"no room"}}') == b'{"error":"no room"}'
    with pytest.raises(UpstreamInvalidError, match="no room"):
        translation.whole(b'{"error":{"message":"no room"}}')


@pytest.mark.parametrize("keep_alive", ["0", '"0"', '"0s"', '"0m"', "0.0"])
def test_nothing_to_answer_and_no_time_to_live_unloads_the_model(keep_alive: str) -> None:
    body = f'{{"model":"tiny","keep_alive":{keep_alive}}}'.encode()

    completion = ollama.unload("/api/generate", body, FakeClock())
    chat = ollama.unload("/api/chat", body, FakeClock())

    assert completion is not None
    assert chat is not None
    assert (completion.model, chat.model) == ("tiny", "tiny")
    recorded_answer = json.loads(recorded("ollama_unload.json"))
    assert json.loads(completion.answer) == recorded_answer | {"created_at": MOMENT}
    assert json.loads(chat.answer)["message"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m"}',
        b'{"model":"m","keep_alive":"5m"}',
        b'{"model":"m","keep_alive":-1}',
        b'{"model":"m","keep_alive":null}',
        b'{"model":"m","keep_alive":0,"prompt":"hello"}',
        b'{"model":"m","keep_alive":0,"messages":[{"role":"user","content":"hello"}]}',
    ],
)
def test_everything_else_does_not(body: bytes) -> None:
    assert ollama.unload("/api/generate", body, FakeClock()) is None
