"""A key for some models stays one on a kept connection, where heads repeat and are not parsed again."""

import json

import pytest
from tests.integration.gateway.models import CHAT, JSON, offer
from tests.integration.guard.conftest import House, bearer
from tests.rigs.raw_http import build_request

SOME, OTHERS = "mine/small", "theirs/large"


def chat(key: bytes, **body: object) -> bytes:
    return build_request(CHAT, JSON, bearer(key), body=json.dumps(body).encode())


@pytest.mark.threat("a limited key", "another model's answers")
async def test_other_models_are_refused_on_a_cached_head_too(house: House) -> None:
    house.rig.gateway.publish([offer(listed=(SOME, OTHERS))])
    key, _ = await house.key(models=frozenset({SOME}))
    client = await house.rig.client()
    asked = [SOME, SOME, OTHERS, OTHERS, SOME, OTHERS, SOME]

    answers = [await client.ask(chat(key, model=model)) for model in asked]

    assert [answer.status for answer in answers] == [200 if model == SOME else 403 for model in asked]
    assert [json.loads(request.body)["model"] for request in house.rig.backend.requests] == [SOME] * 4


@pytest.mark.threat("a limited key", "another model's answers")
async def test_other_models_are_refused_where_the_body_has_to_be_changed_too(house: House) -> None:
    house.rig.gateway.publish([offer(listed=(SOME, OTHERS), set_params={"seed": 7})])
    key, _ = await house.key(models=frozenset({SOME}))
    client = await house.rig.client()
    asked = [SOME, OTHERS, SOME, OTHERS]

    answers = [await client.ask(chat(key, model=model)) for model in asked]

    assert [answer.error_code for answer in answers] == [None, b"forbidden", None, b"forbidden"]
    assert len(house.rig.backend.requests) == 2


@pytest.mark.threat("a limited key", "another model's answers")
async def test_the_models_of_one_connection_do_not_apply_to_another(house: House) -> None:
    house.rig.gateway.publish([offer(listed=(SOME, OTHERS))])
    few, _ = await house.key(models=frozenset({SOME}))
    every, _ = await house.key()
    limited, unlimited = await house.rig.client(), await house.rig.client()

    for _ in range(3):
        assert (await unlimited.ask(chat(every, model=OTHERS))).status == 200
        assert (await limited.ask(chat(few, model=OTHERS))).status == 403


async def test_a_key_that_comes_to_a_kept_connection_is_asked_for_its_own_models(house: House) -> None:
    house.rig.gateway.publish([offer(listed=(SOME, OTHERS))])
    few, _ = await house.key(models=frozenset({SOME}))
    every, _ = await house.key()
    client = await house.rig.client()

    answers = [await client.ask(chat(key, model=OTHERS)) for key in (every, every, few, few, every)]

    assert [answer.status for answer in answers] == [200, 200, 403, 403, 200]
