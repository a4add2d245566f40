"""What prompts say, and how they are refused or fitted to their engines."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from tests.integration.gateway.models import (
    CHAT,
    JSON,
    ask,
    error,
    offer,
)
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import WireRig, wire_rig

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities, Modality, Rule, Treatment
from ai_proxy.core.settings import Limits


@pytest.fixture
async def rig() -> AsyncIterator[WireRig]:
    async with wire_rig(services=("svc", "other")) as rig:
        rig.gateway.publish([offer(models=("llama3",)), offer("other", listed=["phi", "qwen"])])
        yield rig


BAD = {
    "empty": (b"", "it is empty", None),
    "no JSON": (b"model=llama3", "the body must be a JSON object", None),
    "cut short": (b'{"model":"llama3"', "the body must be a JSON object", None),
    "a list": (b"[]", "the body must be a JSON object", None),
    "no model": (b'{"messages":[]}', "must name a model", "model"),
    "a number as model": (b'{"model":7}', "model must be a string", "model"),
    "nested without end": (b'{"model":' + b"[" * 100_000, "the body must be a JSON object", None),
    "not UTF-8": (b'{"model":"\xff"}', "", None),
    "half of a character": (b'{"model":"\\ud800"}', "", None),
    "a byte order mark": (b'\xef\xbb\xbf{"model":"phi"}', "the body must be a JSON object", None),
    "two objects": (b'{"model":"phi"}{"model":"qwen"}', "the body must be a JSON object", None),
    "a model for those who ignore case": (b'{"model":"phi","Model":"qwen"}', "exactly once", "model"),
    "a stream of 1": (b'{"model":"phi","stream":1}', "stream must be true or false", "stream"),
    "a stream in quotes": (b'{"model":"phi","stream":"true"}', "stream must be true or false", "stream"),
}


@pytest.mark.parametrize(("body", "says", "param"), BAD.values(), ids=BAD)
async def test_a_bad_body_is_400_in_words(rig: WireRig, body: bytes, says: str, param: str | None) -> None:
    response = await rig.ask(build_request(CHAT, JSON, method=b"POST", body=body))

    told = error(response)
    assert (response.status, told["type"]) == (400, "invalid_request_error")
    assert says in told["message"]
    assert param is None or told["param"] == param


TWICE = {
    "one after the other": b'{"model":"llama3","model":"phi"}',
    "with an escape": b'{"model":"llama3","mod\\u0065l":"phi"}',
    "both with escapes": b'{"\\u006dodel":"llama3","mode\\u006C":"phi"}',
    "with white space": b'{"model" :"llama3", "messages":["]"], "model"\n: "phi"}',
    "the first one null": b'{"model":null,"model":"phi"}',
    "the last one null": b'{"model":"phi","model":null}',
    "around an object": b'{"model":"phi","a":{"b":["{\\"",{}]},"model":"llama3"}',
}


@pytest.mark.threat("a limited key", "another model's answers")
@pytest.mark.parametrize("path", [CHAT, b"/v1/messages"])
@pytest.mark.parametrize("body", TWICE.values(), ids=TWICE)
async def test_a_body_with_two_models_is_400(rig: WireRig, path: bytes, body: bytes) -> None:
    response = await rig.ask(build_request(path, JSON, body=body))

    assert response.status == 400
    assert "model must be given exactly once" in error(response)["message"]
    assert not any(backend.requests for backend in rig.backends.values())


async def test_a_model_within_a_tool_or_a_text_is_none_of_the_request(rig: WireRig) -> None:
    body = b'{"tools":[{"model":"a"},{"model":"b"}],"model":"phi","user":"\\u00e9\\"model\\":\\"x\\""}'

    response = await rig.ask(build_request(CHAT, JSON, body=body))

    assert response.status == 200
    assert rig.backends["other"].requests[0].body == body


async def test_a_very_long_name_is_refused_quickly_and_quoted_shortly(rig: WireRig) -> None:
    async with asyncio.timeout(30):
        response = await rig.ask(ask(model="llama3" * 500_000))

    assert response.status == 404
    assert len(response.body) < 1000


async def test_line_ends_in_a_name_stay_in_the_body_and_in_quotes(rig: WireRig) -> None:
    response = await rig.ask(ask(model="a\r\nx-evil: 1\x00"))

    assert response.header(b"x-evil") is None
    assert r"'a\r\nx-evil: 1\x00'" in error(response)["message"]


async def test_an_image_is_noticed_beside_what_cannot_be_read(rig: WireRig) -> None:
    body = b'{"model":"phi","messages":[{"content":[{"type":"image_url"}],"x":"\xff"}]}'

    response = await rig.ask(build_request(CHAT, JSON, body=body))

    assert response.status == 422


async def test_a_target_in_absolute_form_is_asked_in_origin_form(rig: WireRig) -> None:
    await rig.ask(ask(b"http://test" + CHAT + b"?a=b", model="llama3"))

    assert rig.backend.requests[0].target == CHAT + b"?a=b"


async def test_json_is_taken_whatever_the_client_calls_it(rig: WireRig) -> None:
    form = b"content-type: application/x-www-form-urlencoded"

    await rig.ask(build_request(CHAT, form, body=b'{"model":"phi"}'))

    (request,) = rig.backends["other"].requests
    assert request.all(b"content-type") == [b"application/json"]


async def test_too_much_json_is_413_and_not_held() -> None:
    async with wire_rig(Limits(max_json_body=1000)) as rig:
        response = await rig.ask(ask(model="m", messages="x" * 2000))

        assert (response.status, error(response)["code"]) == (413, "body_too_large")


async def test_parameters_are_set_defaulted_dropped_clamped_and_told(rig: WireRig) -> None:
    rules = {
        "temperature": Rule(Treatment.CLAMP, 0, 2),
        "logit_bias": Rule(Treatment.DROP, why="Plain has none"),
    }
    abilities = Abilities("Plain", TEXT_ENDPOINTS, rules)
    service = offer(
        abilities=abilities,
        listed=["m"],
        set_params={"seed": 7},
        default_params={"top_p": 0.5, "top_k": 3},
        drop_params=("user",),
    )
    rig.gateway.publish([service])

    response = await rig.ask(
        ask(model="m", temperature=9, logit_bias={}, seed=1, top_p=0.9, user="me", messages=[])
    )

    (request,) = rig.backend.requests
    sent = {"model": "m", "temperature": 2, "seed": 7, "top_p": 0.9, "top_k": 3, "messages": []}
    assert json.loads(request.body) == sent
    warning = b"logit_bias was left out (Plain has none); temperature was set to 2"
    assert response.header(b"x-ai-proxy-warning") == warning


async def test_a_parameter_that_must_not_be_ignored_is_400(rig: WireRig) -> None:
    abilities = Abilities("Plain", TEXT_ENDPOINTS, {"tools": Rule(Treatment.REJECT)})
    rig.gateway.publish([offer(abilities=abilities, listed=["m"])])

    response = await rig.ask(ask(model="m", tools=[{}]))

    told = error(response)
    assert (response.status, told["code"], told["param"]) == (400, "unsupported_parameter", "tools")


async def test_images_for_a_model_without_eyes_are_422(rig: WireRig) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}

    response = await rig.ask(ask(model="phi", messages=[{"role": "user", "content": [part]}]))

    assert (response.status, error(response)["code"]) == (422, "unsupported_modalities")


async def test_a_prompt_that_only_speaks_of_images_is_no_image(rig: WireRig) -> None:
    text = 'write {"type":"image_url"} and "image_url"'

    response = await rig.ask(ask(model="phi", messages=[{"role": "user", "content": text}]))

    assert response.status == 200


async def test_a_part_beside_the_messages_is_no_image(rig: WireRig) -> None:
    response = await rig.ask(ask(model="phi", messages=[["x"]], metadata=[{"type": "image_url"}]))

    assert response.status == 200


async def test_images_pass_where_the_engine_takes_them(rig: WireRig) -> None:
    seeing = Abilities("Seeing", TEXT_ENDPOINTS, modalities=frozenset({Modality.IMAGE}))
    rig.gateway.publish([offer(abilities=seeing, listed=["m"])])
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}

    response = await rig.ask(ask(model="m", messages=[{"role": "user", "content": [part]}]))

    assert response.status == 200
