import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.conftest import Keeper

from ai_proxy.cli.api_keys import find_key
from ai_proxy.cli.output import UserError
from ai_proxy.config.schema import Config
from ai_proxy.core.errors import UnknownKeyError
from ai_proxy.core.keys import ApiKey, Grant
from ai_proxy.core.store_ports import Usage
from ai_proxy.instances.state import ProxyState, open_state
from ai_proxy.platform.clock import SystemClock

JSON = ("--format", "json")


def test_the_key_alone_goes_to_standard_output(keeper: Keeper) -> None:
    ran = keeper("api-keys", "create", "laptop")

    (plain,) = ran.out.splitlines()
    assert (ran.code, plain.startswith("aip_")) == (0, True)
    assert "shown only once" in ran.err
    assert plain not in ran.err
    assert "the first key" in ran.err
    assert "first one" not in keeper("api-keys", "create", "phone").err


def test_a_key_may_do_what_it_is_told_to(keeper: Keeper) -> None:
    made = keeper(
        *("api-keys", "create", "laptop", "--admin", "--model", "llama*", "--model", "qwen", "--rpm", "60"),
        *("--burst", "5", "--tpm", "0", "--concurrency", "2", "--expires", "30d", *JSON),
    ).data["key"]

    assert (made["scopes"], made["models"]) == (["admin", "inference"], ["llama*", "qwen"])
    assert [made[name] for name in ("rpm", "burst", "tpm", "concurrency")] == [60, 5, 0, 2]
    assert made["expires"] - made["created"] == pytest.approx(30 * 86_400, abs=5)
    assert keeper("api-keys", "list", *JSON).data == [made]


def test_a_key_for_management_only_can_be_made(keeper: Keeper) -> None:
    assert keeper("api-keys", "create", "--scope", "admin", *JSON).data["key"]["scopes"] == ["admin"]


def test_the_list_is_a_table(keeper: Keeper) -> None:
    assert "ai-proxy api-keys create" in keeper("api-keys", "list").out
    keeper("api-keys", "create", "laptop", "--rpm", "60")

    head, row = keeper("api-keys", "list").out.splitlines()

    assert head.split() == ["ID", "LABEL", "STATE", "SCOPES", "MODELS", "LIMITS", "EXPIRES", "LAST", "USED"]
    assert row.split()[1:] == ["laptop", "good", "inference", "all", "rpm", "60", "never", "never"]


def test_a_revoked_key_stays_in_the_list(keeper: Keeper) -> None:
    key = keeper("api-keys", "create", "laptop", *JSON).data["key"]["id"]

    ran = keeper("api-keys", "revoke", "laptop")

    assert (ran.code, ran.out) == (0, f"API key {key} (laptop) is revoked\n")
    assert [one["state"] for one in keeper("api-keys", "list", *JSON).data] == ["revoked"]


def test_a_replaced_key_is_good_until_the_overlap_ends(keeper: Keeper) -> None:
    keeper("api-keys", "create", "laptop", "--rpm", "60")

    fresh = keeper("api-keys", "rotate", "laptop", "--overlap", "10m", *JSON).data

    old, new = keeper("api-keys", "list", *JSON).data
    assert (new, new["rotated_from"], new["rpm"]) == (fresh["key"], old["id"], 60)
    assert old["expires"] - new["created"] == pytest.approx(600, abs=1)


def test_what_was_used_is_told_with_labels(keeper: Keeper) -> None:
    key = keeper("api-keys", "create", "laptop", *JSON).data["key"]["id"]

    async def use(state: ProxyState) -> None:
        await state.store.usage.add([Usage(key, "llama3", "2026-01-01", 2, 1000, 50)])
        await state.store.usage.add([Usage("", "llama3", "2026-01-02", 1, 1, 1)])

    asyncio.run(keep(keeper.data, use))

    lines = [line.split() for line in keeper("api-keys", "usage").out.splitlines()]
    assert lines[1] == ["2026-01-01", key, "laptop", "llama3", "2", "1,000", "50"]
    assert lines[-1] == ["all", "3", "1,001", "51"]
    assert len(keeper("api-keys", "usage", "laptop", *JSON).data) == 1
    assert len(keeper("api-keys", "usage", "--since", "2026-01-02", *JSON).data) == 1


async def keep(data: Path, work: Callable[[ProxyState], Awaitable[None]]) -> None:
    async with open_state(Config(), SystemClock(), {"AI_PROXY_DATA_DIR": str(data)}) as state:
        await work(state)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("create", "x", "--expires", "soon"), "usage"),
        (("create", "x", "--expires", "0"), "usage"),
        (("create", ""), "invalid_request"),
        (("create", "x", "--scope", "root"), "usage"),
        (("create", "x", "--rpm", "-1"), "usage"),
        (("revoke", "nobody"), "unknown_api_key"),
        (("rotate", "nobody"), "unknown_api_key"),
        (("usage", "nobody"), "unknown_api_key"),
        (("usage", "--since", "yesterday"), "usage"),
    ],
)
def test_what_makes_no_sense_is_the_users_error(keeper: Keeper, words: tuple[str, ...], code: str) -> None:
    ran = keeper("api-keys", *words, *JSON)

    assert (ran.code, ran.error["code"]) == (1, code)
    assert keeper("api-keys", "list", *JSON).data == []


def test_every_change_is_in_the_log(keeper: Keeper) -> None:
    key = keeper("api-keys", "create", "laptop", *JSON).data["key"]["id"]
    keeper("api-keys", "revoke", "laptop")
    keeper("api-keys", "rotate", key)
    keeper("api-keys", "create", "")

    assert keeper.log() == [
        (f"key.create {key}", "ok"),
        (f"key.revoke {key}", "ok"),
        (f"key.rotate {key}", "invalid_request"),
        ("key.create", "invalid_request"),
    ]
    assert {(one["who"], one["where_from"]) for one in keeper("audit", *JSON).data} == {("owner", "local")}


@pytest.mark.threat("an operator's mistake", "a secret in a log, an error or a shown configuration")
def test_a_whole_key_given_instead_of_its_id_is_not_repeated(keeper: Keeper) -> None:
    plain = keeper("api-keys", "create", "laptop").out.strip()

    ran = keeper("api-keys", "revoke", plain)

    assert ran.code == 1
    assert plain not in ran.err


def key(key_id: str, label: str, revoked: float | None = None) -> ApiKey:
    return ApiKey(key_id, key_id.encode(), Grant(label), 0.0, revoked=revoked)


KEYS = [key("aa11", "laptop"), key("aa22", "phone", revoked=1.0), key("bb33", "phone"), key("cc44", "aa11")]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("laptop", "aa11"),
        ("aa11", "aa11"),
        ("aa2", "aa22"),
        ("phone", "bb33"),
        ("b", "bb33"),
    ],
)
def test_a_key_is_found_by_what_is_said_of_it(word: str, found: str) -> None:
    assert find_key(KEYS, word, now=10.0).id == found


def test_what_may_mean_several_keys_is_refused_with_their_ids() -> None:
    with pytest.raises(UserError, match=r"aa11 \(laptop\), aa22 \(phone\)"):
        find_key(KEYS, "aa", now=10.0)


@pytest.mark.parametrize("word", ["", "zz", "Laptop"])
def test_what_means_no_key_is_refused(word: str) -> None:
    with pytest.raises(UnknownKeyError):
        find_key(KEYS, word, now=10.0)


@given(
    st.lists(
        st.tuples(st.text("ab", min_size=4, max_size=4), st.text("ab", min_size=1, max_size=4)),
        unique_by=lambda one: one[0],
    ),
    st.text("ab", max_size=5),
)
def test_a_key_is_only_found_by_what_is_said_of_it_and_always_by_its_id(
    facts: list[tuple[str, str]], word: str
) -> None:
    keys = [key(*one) for one in facts]
    by_id = [one for one in keys if one.id == word]
    said = [one for one in keys if word and (one.grant.label == word or one.id.startswith(word))]
    try:
        found = [find_key(keys, word, now=0.0)]
    except UnknownKeyError:
        found = []
        assert said == []
    except UserError:
        found = []
        assert len(said) > 1

    assert all(one in said for one in found)
    assert not by_id or found == by_id
