"""What the plain HTTP listener answers."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_proxy.tls.redirect import answer

CHALLENGES = {"token-1_x": b"token-1_x.thumbprint"}


def ask(head: bytes, port: int = 443) -> tuple[int, str, bytes]:
    """Return status, Location and body."""
    response = answer(head, port, CHALLENGES)
    head_part, _, body = response.partition(b"\r\n\r\n")
    location = re.search(rb"\r\nLocation: (.*)", head_part)
    return int(head_part.split()[1]), location[1].decode().strip() if location else "", body


@pytest.mark.parametrize(
    ("host", "port", "location"),
    [
        (b"gpu.example.com", 443, "https://gpu.example.com/v1/models?x=%20y"),
        (b"gpu.example.com:80", 443, "https://gpu.example.com/v1/models?x=%20y"),
        (b"gpu", 11000, "https://gpu:11000/v1/models?x=%20y"),
        (b"[fd00::1]:8080", 11000, "https://[fd00::1]:11000/v1/models?x=%20y"),
        (b"10.0.0.5:", 443, "https://10.0.0.5/v1/models?x=%20y"),
    ],
)
def test_the_same_is_found_over_https(host: bytes, port: int, location: str) -> None:
    request = b"GET /v1/models?x=%20y HTTP/1.1\r\nHost: " + host

    assert ask(request, port)[:2] == (308, location)


def test_the_method_is_kept_by_the_status() -> None:
    assert ask(b"POST /v1/chat/completions HTTP/1.1\r\nHost: gpu\r\nContent-Length: 9")[0] == 308


def test_the_authority_of_an_absolute_target_counts() -> None:
    assert ask(b"GET http://gpu:80/x HTTP/1.1\r\nHost: other")[:2] == (308, "https://gpu/x")
    assert ask(b"GET http://gpu?y HTTP/1.1\r\nHost: other")[:2] == (308, "https://gpu/?y")


def test_a_challenge_is_answered_and_not_redirected() -> None:
    path = b"/.well-known/acme-challenge/token-1_x"

    assert ask(b"GET " + path + b" HTTP/1.1\r\nHost: gpu.example.com") == (200, "", b"token-1_x.thumbprint")
    assert ask(b"HEAD " + path + b" HTTP/1.1\r\nHost: gpu.example.com") == (200, "", b"")
    assert ask(b"POST " + path + b" HTTP/1.1\r\nHost: gpu.example.com")[0] == 405


@pytest.mark.parametrize(
    "token", [b"", b"other", b"../token-1_x", b"token-1_x/", b"token-1_x?y", b"%74oken-1_x"]
)
def test_other_tokens_are_not_found(token: bytes) -> None:
    assert ask(b"GET /.well-known/acme-challenge/" + token + b" HTTP/1.1\r\nHost: gpu")[0] == 404


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET / HTTP/1.1",
        b"GET / HTTP/2.0\r\nHost: gpu",
        b"GET  / HTTP/1.1\r\nHost: gpu",
        b"GET * HTTP/1.1\r\nHost: gpu",
        b"CONNECT gpu:443 HTTP/1.1\r\nHost: gpu",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        b"GET / HTTP/1.1\r\nHost: gpu\r\n x: folded",
        b"GET / HTTP/1.1\r\nHost : gpu",
        b"GET / HTTP/1.1\nHost: gpu",
        b"GET / HTTP/1.1\r\nHost: gpu\nX: y",
        b"GET / HTTP/1.1\r\nHost: evil.example/@gpu",
        b"GET / HTTP/1.1\r\nHost: gpu@evil.example",
        b"GET / HTTP/1.1\r\nHost: gpu:80:90",
        b"GET / HTTP/1.1\r\nHost: gpu:port",
        b"GET / HTTP/1.1\r\nHost: gpu\tx",
        b"GET / HTTP/1.1\r\nHost: g\xc3\xbcpu",
        b"GET / HTTP/1.1\r\nHost: [::1",
        b"GET / HTTP/1.1\r\nHost: ",
        b"GET http://a@b/ HTTP/1.1\r\nHost: gpu",
        b"GET http:///x HTTP/1.1\r\nHost: gpu",
        b"GET ftp://gpu/x HTTP/1.1\r\nHost: gpu",
        b"GET /\x7f HTTP/1.1\r\nHost: gpu",
    ],
)
def test_what_is_not_plainly_a_request_is_refused(head: bytes) -> None:
    status, location, _ = ask(head)

    assert (status, location) == (400, "")


@given(st.binary(max_size=200))
@example(b"GET /\rX: y HTTP/1.1\r\nHost: gpu\rLocation: x")
def test_no_bytes_break_out_of_the_answer(noise: bytes) -> None:
    for head in (noise, b"GET / HTTP/1.1\r\nHost: " + noise, b"GET /" + noise + b" HTTP/1.1\r\nHost: gpu"):
        response_head, _, _ = answer(head, 443, {}).partition(b"\r\n\r\n")
        names = [line.partition(b":")[0] for line in response_head.split(b"\r\n")[1:]]
        assert len(names) == len(set(names)) <= 5
        assert b"\n" not in response_head.replace(b"\r\n", b"")
