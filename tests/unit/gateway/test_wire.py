import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.gateway.http.wire import (
    HOP_BY_HOP,
    nominated,
    origin_form,
    tokens,
    without_nominated,
)

names = st.sampled_from([b"X-A", b"x-a", b"X-B", b"Content-Length", b"Transfer-Encoding", b"Host", b"Cookie"])


@given(st.lists(names), st.lists(names))
def test_nominated_headers_are_dropped_and_framing_never_is(
    headers: list[bytes], nominees: list[bytes]
) -> None:
    connection = (b"Connection", b", ".join(nominees))
    kept = without_nominated([connection, *((name, b"v") for name in headers)])

    framing = {b"content-length", b"transfer-encoding", b"host"}
    dropped = {name.lower() for name in nominees} - framing
    if not dropped:
        assert kept is None
    else:
        assert kept == [(name, b"v") for name in headers if name.lower() not in dropped]


@given(st.binary())
def test_a_token_is_never_empty_and_has_no_comma(value: bytes) -> None:
    assert all(token and b"," not in token and token == token.strip().lower() for token in tokens(value))


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://h/service/a?b", b"/service/a?b"),
        (b"http://h?x=/y", b"/?x=/y"),
        (b"https://u:p@h:1/x//y", b"/x//y"),
        (b"ftp://h/x", b"ftp://h/x"),
        (b"*", b"*"),
        (b"//h/x", b"//h/x"),
    ],
)
def test_the_path_of_an_absolute_target(target: bytes, path: bytes) -> None:
    assert origin_form(target) == path


@given(st.binary())
def test_a_target_in_origin_form_is_left_alone(rest: bytes) -> None:
    assert origin_form(b"/" + rest) == b"/" + rest


def test_connection_options_are_no_nominations() -> None:
    assert nominated(b"close, Keep-Alive, UPGRADE, ,") == []


def test_hop_by_hop_headers_are_in_lower_case() -> None:
    assert all(name == name.lower() for name in HOP_BY_HOP)
