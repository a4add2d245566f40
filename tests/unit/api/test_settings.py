import pytest
from tests.unit.api.house import House

from ai_proxy.core.run_settings import SETTINGS


async def test_every_setting_is_listed_and_nothing_else_in_the_store(house: House) -> None:
    said = await house.ask("GET", "/settings")

    assert "security.pepper_fingerprint" in await house.state.store.settings.all()
    assert [one["name"] for one in said.body["settings"]] == list(SETTINGS)
    assert not any(one["made"] for one in said.body["settings"])


async def test_a_setting_holds_once_it_is_made_until_it_is_taken_back(house: House) -> None:
    heard = list[int]()
    house.state.settings.listen(lambda settings: heard.append(settings.engine.max_network_failures))

    made = await house.ask("PUT", "/settings/engine.max_network_failures", {"value": 7})
    dropped = await house.ask("DELETE", "/settings/engine.max_network_failures")

    assert [(said.body["value"], said.body["otherwise"], said.body["made"]) for said in (made, dropped)] == [
        (7, 3, True),
        (3, 3, False),
    ]
    assert heard == [7, 3]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("engine.cache_ttl", "5m", 300.0),
        ("engine.cache_ttl", 60, 60),
        ("engine.detect", False, False),
        ("log.level", "debug", "debug"),
    ],
)
async def test_a_value_may_be_given_as_people_write_it(
    house: House, name: str, value: object, kept: object
) -> None:
    assert (await house.ask("PUT", f"/settings/{name}", {"value": value})).body["value"] == kept


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("engine.cach_ttl", {"value": 1}, 404, "unknown_setting"),
        ("security.pepper_fingerprint", {"value": "x"}, 404, "unknown_setting"),
        ("engine.cache_ttl", {"value": "soon"}, 422, "invalid_setting"),
        ("engine.detect", {"value": 1}, 422, "invalid_setting"),
        ("engine.detect", {}, 422, "invalid_request"),
    ],
)
async def test_what_cannot_be_made_is_refused(
    house: House, name: str, body: object, status: int, code: str
) -> None:
    said = await house.ask("PUT", f"/settings/{name}", body)

    assert (said.status, said.code) == (status, code)


async def test_nothing_but_a_setting_can_be_taken_back(house: House) -> None:
    said = await house.ask("DELETE", "/settings/security.pepper_fingerprint")

    assert (said.status, said.code) == (404, "unknown_setting")
    assert "security.pepper_fingerprint" in await house.state.store.settings.all()
