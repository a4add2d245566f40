from typing import Any

import pytest
from tests.unit.api.house import House

from ai_proxy.core.errors import InvalidKeyError
from ai_proxy.core.keys import Grant
from ai_proxy.core.limits import Allowance
from ai_proxy.core.store_ports import Usage

LAPTOP = {"label": "laptop", "models": ["llama*"], "rpm": 60, "tpm": 0}


async def made(house: House, **facts: object) -> dict[str, Any]:
    said = await house.ask("POST", "/keys", {**LAPTOP, **facts})
    assert said.status == 201
    answer: dict[str, Any] = said.body
    return answer


async def test_a_new_key_is_shown_once_and_is_good(house: House) -> None:
    said = await house.ask("POST", "/keys", LAPTOP)

    assert (said.status, said.headers["Cache-Control"]) == (201, "no-store")
    key = house.state.security.keys.verify(said.body["plain"].encode(), house.clock.wall())
    assert key.grant == Grant("laptop", models=frozenset({"llama*"}), allowance=Allowance(rpm=60, tpm=0))
    listed = await house.ask("GET", "/keys")
    assert listed.body == {"keys": [{**said.body["key"], "last_used": house.clock.wall()}]}
    assert said.body["key"]["state"] == "good"


async def test_a_key_expires_when_it_is_told_to(house: House) -> None:
    soon = await made(house, expires_in=10)
    later = await made(house, expires_at=house.clock.wall() + 20)
    await house.clock.advance(15)

    listed = await house.ask("GET", "/keys")

    assert {one["id"]: one["state"] for one in listed.body["keys"]} == {
        soon["key"]["id"]: "expired",
        later["key"]["id"]: "good",
    }


@pytest.mark.parametrize(
    ("wrong", "status", "code", "told"),
    [
        ({"label": ""}, 422, "invalid_request", "label"),
        ({"label": "a\nb"}, 400, "invalid_request", "printable"),
        ({"scopes": ["root"]}, 422, "invalid_request", "'inference' or 'admin'"),
        ({"rpm": -1}, 422, "invalid_request", "rpm"),
        ({"requests": 1}, 422, "invalid_request", "requests"),
        ({"expires_at": 1}, 400, "invalid_request", "past"),
        ({"expires_in": 5, "expires_at": 2e9}, 400, "invalid_request", "not both"),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(
    house: House, wrong: dict[str, object], status: int, code: str, told: str
) -> None:
    said = await house.ask("POST", "/keys", {**LAPTOP, **wrong})

    assert (said.status, said.code) == (status, code)
    assert told in said.body["detail"]
    assert (await house.ask("GET", "/keys")).body == {"keys": []}


async def test_a_revoked_key_is_no_longer_good(house: House) -> None:
    key = await made(house)

    said = await house.ask("DELETE", f"/keys/{key['key']['id']}")

    assert (said.status, said.body["state"], said.body["revoked"]) == (200, "revoked", house.clock.wall())
    with pytest.raises(InvalidKeyError, match="revoked"):
        house.state.security.keys.verify(key["plain"].encode(), house.clock.wall())


async def test_a_key_is_replaced_and_both_are_good_for_a_while(house: House) -> None:
    key = await made(house)

    said = await house.ask("POST", f"/keys/{key['key']['id']}/rotate?overlap=60")

    assert (said.status, said.headers["Cache-Control"]) == (201, "no-store")
    assert (said.body["key"]["rotated_from"], said.body["key"]["rpm"]) == (key["key"]["id"], 60)
    keys, now = house.state.security.keys, house.clock.wall()
    keys.verify(said.body["plain"].encode(), now + 61)
    keys.verify(key["plain"].encode(), now + 59)
    with pytest.raises(InvalidKeyError, match="expired"):
        keys.verify(key["plain"].encode(), now + 61)


async def test_a_key_that_is_over_is_not_replaced(house: House) -> None:
    key = await made(house)
    await house.ask("DELETE", f"/keys/{key['key']['id']}")

    said = await house.ask("POST", f"/keys/{key['key']['id']}/rotate")

    assert (said.status, said.code) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", ""), ("POST", "/rotate"), ("GET", "/usage")], ids=lambda value: value
)
async def test_a_key_that_there_is_not_is_not_found(house: House, method: str, path: str) -> None:
    said = await house.ask(method, f"/keys/0123456789ab{path}")

    assert (said.status, said.code) == (404, "unknown_api_key")


async def test_a_whole_key_in_the_path_is_not_repeated(house: House) -> None:
    key = (await made(house))["plain"]

    said = await house.ask("DELETE", f"/keys/{key}")

    assert (said.status, said.code) == (404, "unknown_api_key")
    assert key not in str(said.body)
    assert key not in str(await house.log())


async def test_what_was_used_is_told_by_key_and_in_all(house: House) -> None:
    key = await made(house)
    await house.state.store.usage.add(
        [
            Usage(key["key"]["id"], "llama3", "2026-01-01", 1, 10, 20),
            Usage(key["key"]["id"], "llama3", "2026-01-02", 2, 30, 40),
            Usage("", "llama3", "2026-01-02", 4, 50, 60),
        ]
    )

    mine = await house.ask("GET", f"/keys/{key['key']['id']}/usage")
    everybodys = await house.ask("GET", "/usage?since=2026-01-02")

    assert (mine.body["requests"], mine.body["tokens_in"], mine.body["tokens_out"]) == (3, 40, 60)
    assert [one["key_id"] for one in everybodys.body["usage"]] == ["", key["key"]["id"]]
    assert everybodys.body["requests"] == 6


async def test_a_day_that_is_none_is_refused(house: House) -> None:
    assert (await house.ask("GET", "/usage?since=yesterday")).status == 422
