import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.gateway.http.response import AMBIGUOUS, UNSTATED, ends_in_surplus, filter_response, skip_interim
from ai_proxy.gateway.http.wire import Header

LENGTH: Header = (b"Content-Length", b"5")
CHUNKED: Header = (b"Transfer-Encoding", b"chunked")


@pytest.mark.parametrize(
    ("headers", "length", "chunked"),
    [
        ([], UNSTATED, False),
        ([LENGTH], 5, False),
        ([(b"content-length", b" 5 ")], 5, False),
        ([CHUNKED], UNSTATED, True),
        ([(b"transfer-encoding", b" CHUNKED ")], UNSTATED, True),
        ([LENGTH, LENGTH], AMBIGUOUS, False),
        ([LENGTH, CHUNKED], AMBIGUOUS, True),
        ([CHUNKED, LENGTH], AMBIGUOUS, True),
        ([CHUNKED, CHUNKED], AMBIGUOUS, True),
        ([(b"Transfer-Encoding", b"gzip")], AMBIGUOUS, True),
        ([(b"Transfer-Encoding", b"gzip, chunked")], AMBIGUOUS, True),
        ([(b"Content-Length", b"-5")], AMBIGUOUS, False),
        ([(b"Content-Length", b"+5")], AMBIGUOUS, False),
        ([(b"Content-Length", b"5, 5")], AMBIGUOUS, False),
        ([(b"Connection", b"content-length, transfer-encoding"), LENGTH], 5, False),
    ],
)
def test_the_framing_of_a_response(headers: list[Header], length: int, chunked: bool) -> None:
    assert filter_response(headers, []) == (length, chunked)


def test_what_the_head_began_with_is_kept_when_headers_are_nominated() -> None:
    lines = [b"HTTP/1.1", b" 200 OK\r\n"]

    filter_response([(b"X-A", b"1"), (b"Connection", b"x-a"), (b"X-B", b"2")], lines)

    assert b"".join(lines) == b"HTTP/1.1 200 OK\r\nX-B: 2\r\n"


interim = st.sampled_from(
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\n", b"HTTP/1.1 102 P\r\n\r\n"]
)
final = st.sampled_from(
    [b"HTTP/1.1 200 OK\r\n\r\nbody", b"HTTP/1.1 101 Switching\r\n\r\nbytes", b"HTTP/1.1 204 No\r\n\r\n"]
)


@given(st.lists(interim), final)
def test_only_the_final_response_is_left(before: list[bytes], response: bytes) -> None:
    left, end = skip_interim(b"".join(before) + response)

    assert left == response
    assert end == response.index(b"\r\n\r\n")


@given(st.lists(interim), final, st.integers(0, 500))
def test_interim_responses_are_skipped_however_they_are_cut(
    before: list[bytes], response: bytes, cut: int
) -> None:
    data = b"".join(before) + response
    first, _ = skip_interim(data[: cut % len(data)])
    left, _ = skip_interim(first + data[cut % len(data) :])

    assert left == response


@given(
    st.binary(max_size=20).filter(lambda data: data[-1:] not in (b"\r", b"\n")),
    st.sampled_from([b"", b"\r\n", b"\n"]),
)
def test_line_ends_after_the_end_are_surplus(before: bytes, surplus: bytes) -> None:
    whole = before + b"0\r\n\r\n"

    assert ends_in_surplus(whole + surplus) is bool(surplus)
