from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.errors import ForbiddenError, InvalidKeyError, InvalidRequestError
from ai_proxy.core.keys import (
    RANDOM_BYTES,
    ApiKey,
    Grant,
    Scope,
    check_grant,
    check_model,
    check_scope,
    check_service,
    check_valid,
    key_digest,
    key_id,
    plain_key,
    presented_keys,
    redacted,
    rotate,
)
from ai_proxy.core.limits import Allowance

randomness = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)
KEY = ApiKey("000000000001", b"d" * 32, Grant("laptop"), created=100.0)


@given(randomness)
def test_a_key_is_whole_and_carries_its_id(random: bytes) -> None:
    plain = plain_key(random)

    assert key_id(plain.text.encode()) == plain.id
    assert len(plain.text) == 66


@given(randomness, st.integers(4, 65), st.sampled_from("0aZ_"))
def test_a_mistyped_key_is_told_from_a_whole_one(random: bytes, place: int, letter: str) -> None:
    text = plain_key(random).text
    mistyped = text[:place] + letter + text[place + 1 :]

    assert (key_id(mistyped.encode()) == "") == (mistyped != text)


@given(st.sets(randomness, min_size=2, max_size=2))
def test_different_keys_and_peppers_have_different_digests(pair: set[bytes]) -> None:
    one, other = (plain_key(random).text.encode() for random in pair)

    digests = {key_digest(pepper * 32, key) for pepper in (b"a", b"b") for key in (one, other)}

    assert len(digests) == 4


def test_neither_a_key_nor_its_plain_form_shows_a_secret() -> None:
    plain = plain_key(bytes(RANDOM_BYTES))

    assert plain.text not in repr(plain)
    assert "ddd" not in repr(KEY)


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        (b"authorization", b"Bearer aip_x", b"aip_x"),
        (b"authorization", b"bearer   aip_x ", b"aip_x"),
        (b"x-api-key", b"aip_x", b"aip_x"),
        (b"api-key", b" aip_x", b"aip_x"),
        (b"authorization", b"aip_x", None),
        (b"authorization", b"Basic aip_x", None),
        (b"authorization", b"Bearer sk-other", None),
        (b"x-api-key", b"sk-other", None),
        (b"cookie", b"aip_x", None),
        (b"x-api-key", b"", None),
    ],
)
def test_a_key_is_read_from_the_headers_that_may_carry_one(
    name: bytes, value: bytes, key: bytes | None
) -> None:
    found = presented_keys([(b"host", b"h"), (name, value)])

    assert [(one.key, one.header) for one in found] == ([(key, name)] if key else [])


def test_a_backends_own_login_is_no_key_of_ours() -> None:
    found = presented_keys([(b"authorization", b"Bearer sk-backend"), (b"x-api-key", b"aip_x")])

    assert [one.header for one in found] == [b"x-api-key"]


def test_a_key_is_good_until_the_moment_it_expires() -> None:
    _, fresh = rotate(KEY, "000000000002", b"e" * 32, now=200.0, overlap=60.0)
    old, _ = rotate(KEY, "000000000002", b"e" * 32, now=200.0, overlap=60.0)

    check_valid(old, 259.9)
    with pytest.raises(InvalidKeyError, match="has expired"):
        check_valid(old, 260.0)
    check_valid(fresh, 1e9)


def test_rotation_keeps_the_grant_and_never_makes_a_key_live_longer() -> None:
    old, fresh = rotate(replace(KEY, expires=210.0), "000000000002", b"e" * 32, now=200.0, overlap=60.0)

    assert old.expires == fresh.expires == 210.0
    assert fresh.grant == KEY.grant
    assert fresh.rotated_from == KEY.id


def test_a_key_is_refused_what_its_scope_does_not_hold() -> None:
    check_scope(KEY, Scope.INFERENCE)
    with pytest.raises(ForbiddenError, match="scope admin; 000000000001 has inference"):
        check_scope(KEY, Scope.ADMIN)


def test_a_key_is_for_the_models_it_names_by_name_or_pattern() -> None:
    key = ApiKey("k", b"", Grant("l", models=frozenset({"coder", "llama*"})), created=0.0)

    check_model(key, "coder")
    check_model(key, "box/llama3", "llama3")
    check_model(KEY, "anything")
    with pytest.raises(ForbiddenError, match="it allows coder, llama"):
        check_model(key, "gpt")


@pytest.mark.parametrize(
    ("models", "whole"),
    [
        ({"box"}, True),
        ({"box/*"}, True),
        ({"*"}, True),
        ({"*/*"}, True),
        (set(), True),
        ({"b*"}, False),
        ({"box/llama"}, False),
        ({"box/l*"}, False),
        ({"other", "boxes/*"}, False),
    ],
)
def test_a_key_is_for_a_whole_service_only_where_it_says_so(models: set[str], whole: bool) -> None:
    key = ApiKey("k", b"", Grant("l", models=frozenset(models)), created=0.0)

    if whole:
        check_service(key, "box")
    else:
        with pytest.raises(ForbiddenError, match="does not allow 'box'"):
            check_service(key, "box")


@pytest.mark.parametrize(
    ("grant", "param"),
    [
        (Grant(""), "label"),
        (Grant("a\nb"), "label"),
        (Grant("x" * 101), "label"),
        (Grant("x", scopes=frozenset()), "scopes"),
        (Grant("x", models=frozenset({""})), "models"),
        (Grant("x", allowance=Allowance(rpm=-1)), "rpm"),
        (Grant("x", allowance=Allowance(tpm=10**13)), "tpm"),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused_by_name(grant: Grant, param: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        check_grant(grant)

    assert refused.value.param == param


@given(randomness, st.text(max_size=20), st.text(max_size=20))
def test_no_secret_is_left_in_a_redacted_text(random: bytes, before: str, after: str) -> None:
    plain = plain_key(random)

    assert plain.text[17:] not in redacted(f"{before} {plain.text} {after}")
