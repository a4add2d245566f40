import pytest
from tests.unit.cli.conftest import Keeper

from ai_proxy.core.run_settings import SETTINGS

JSON = ("--format", "json")


def test_a_setting_holds_once_it_is_set_until_it_is_unset(keeper: Keeper) -> None:
    assert keeper("config", "get", "engine.cache_ttl").out == "5m\n"
    assert keeper("config", "set", "engine.cache_ttl", "1h").out == "engine.cache_ttl is 1h\n"
    assert keeper("config", "get", "engine.cache_ttl").out == "1h\n"
    assert keeper("config", "unset", "engine.cache_ttl").out == "engine.cache_ttl is 5m again\n"
    assert keeper("config", "get", "engine.cache_ttl", *JSON).data["made"] is False


def test_a_setting_comes_before_the_configuration_file(keeper: Keeper) -> None:
    keeper.data.parent.joinpath("config.yaml").write_text("engine: {cache_ttl: 10m, detect: false}\n")

    keeper("config", "set", "engine.detect", "on")

    told = {one["name"]: one for one in keeper("config", "list", *JSON).data}
    assert (told["engine.cache_ttl"]["value"], told["engine.cache_ttl"]["made"]) == (600.0, False)
    assert (told["engine.detect"]["value"], told["engine.detect"]["otherwise"]) == (True, False)


def test_everything_that_can_be_set_is_listed(keeper: Keeper) -> None:
    head, *lines = keeper("config", "list").out.splitlines()

    assert head.split()[:3] == ["SETTING", "VALUE", "FROM"]
    assert [line.split()[0] for line in lines] == list(SETTINGS)
    assert "pepper" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("set", "engine.cach_ttl", "1h"), "unknown_setting"),
        (("set", "engine.cache_ttl", "soon"), "invalid_setting"),
        (("set", "security.pepper_fingerprint", "x"), "unknown_setting"),
        (("unset", "security.pepper_fingerprint"), "unknown_setting"),
        (("get", "security.pepper_fingerprint"), "unknown_setting"),
        (("set", "engine.cache_ttl"), "usage"),
    ],
)
def test_what_cannot_be_set_is_the_users_error(keeper: Keeper, words: tuple[str, ...], code: str) -> None:
    ran = keeper("config", *words, *JSON)

    assert (ran.code, ran.error["code"]) == (1, code)


def test_every_change_is_in_the_log(keeper: Keeper) -> None:
    keeper("config", "set", "log.level", "debug")
    keeper("config", "set", "log.level", "loud")
    keeper("config", "unset", "log.level")

    assert keeper.log() == [
        ("settings.put log.level", "ok"),
        ("settings.put log.level", "invalid_setting"),
        ("settings.drop log.level", "ok"),
    ]
