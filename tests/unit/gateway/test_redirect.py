"""What plain HTTP gets beside TLS."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.errors import MalformedRequestError
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.respond import LocalResponse
from ai_proxy.gateway.routing.redirect import answer

CHALLENGES = {"token-1_x": b"token-1_x.thumbprint"}


def ask(target: bytes, host: bytes = b"gpu", port: int = 443, method: bytes = b"GET") -> LocalResponse:
    return answer(Request(method, target), [(b"Host", host)], port, CHALLENGES)


def location(response: LocalResponse) -> str:
    found = re.search(rb"^location: (.*)\r\n", response.lines)
    return found[1].decode() if found else ""


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        (b"gpu.example.com", 443, "https://gpu.example.com/v1/models?x=%20y"),
        (b"gpu.example.com:80", 443, "https://gpu.example.com/v1/models?x=%20y"),
        (b"gpu", 11000, "https://gpu:11000/v1/models?x=%20y"),
        (b"[fd00::1]:8080", 11000, "https://[fd00::1]:11000/v1/models?x=%20y"),
        (b"10.0.0.5:", 443, "https://10.0.0.5/v1/models?x=%20y"),
    ],
)
def test_the_same_is_found_over_https(host: bytes, port: int, expected: str) -> None:
    response = ask(b"/v1/models?x=%20y", host, port)

    assert (response.status, location(response)) == (308, expected)


def test_the_authority_of_an_absolute_target_counts() -> None:
    assert location(ask(b"http://gpu:80/x", b"other")) == "https://gpu/x"
    assert location(ask(b"http://gpu?y", b"other")) == "https://gpu/?y"


def test_a_challenge_is_answered_and_not_redirected() -> None:
    path = b"/.well-known/acme-challenge/token-1_x"

    assert (ask(path).status, ask(path).body) == (200, b"token-1_x.thumbprint")
    assert ask(path, method=b"HEAD").status == 200
    assert ask(path, method=b"POST").status == 405


@pytest.mark.parametrize(
    "token", [b"", b"other", b"../token-1_x", b"token-1_x/", b"token-1_x?y", b"%74oken-1_x"]
)
def test_other_tokens_are_not_found(token: bytes) -> None:
    assert ask(b"/.well-known/acme-challenge/" + token).status == 404


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"*", b"gpu"),
        (b"/", b"evil.example/@gpu"),
        (b"/", b"gpu@evil.example"),
        (b"/", b"gpu:80:90"),
        (b"/", b"gpu:port"),
        (b"/", b"gpu\tx"),
        (b"/", b"g\xc3\xbcpu"),
        (b"/", b"[::1"),
        (b"/", b""),
        (b"http://a@b/", b"gpu"),
        (b"http:///x", b"gpu"),
        (b"ftp://gpu/x", b"gpu"),
        (b"/\x7f", b"gpu"),
    ],
)
def test_what_does_not_say_where_it_is_for_is_refused(target: bytes, host: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        ask(target, host)


@given(st.binary(max_size=200), st.sampled_from([b"/", b"/x", b"http://gpu/"]))
def test_no_bytes_break_out_of_the_answer(noise: bytes, beginning: bytes) -> None:
    for target, host in ((beginning + noise, b"gpu"), (b"/", noise), (noise, b"gpu")):
        try:
            lines = ask(target, host).lines
        except MalformedRequestError:
            continue
        names = [line.partition(b":")[0] for line in lines.split(b"\r\n")[:-1]]
        assert len(names) == len(set(names)) <= 3
        assert b"\n" not in lines.replace(b"\r\n", b"")
