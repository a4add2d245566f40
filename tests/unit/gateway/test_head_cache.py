from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.gateway.http.head_cache import CachedRequestHead, CachedResponseHead, split_at_length

HEAD = b"POST /service/a/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nA: b\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length:  5\r\nA: b\r\n\r\n"
PASSED_ON = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nA: b\r\n"


def cached_head(head: bytes = HEAD, limit: int = 1000) -> CachedRequestHead[str]:
    return CachedRequestHead(head, "plan", object(), limit)


@given(st.binary(max_size=1000))
def test_the_same_head_with_another_length_is_known(body: bytes) -> None:
    data = HEAD.replace(b": 5", b": %d" % len(body)) + body

    assert cached_head().match(data) == body


@given(st.lists(st.binary(max_size=12), max_size=20))
def test_heads_of_any_lengths_in_any_order_are_known(bodies: list[bytes]) -> None:
    memo = cached_head()

    found = [memo.match(HEAD.replace(b": 5", b": %d" % len(body)) + body) for body in bodies]

    assert found == bodies


@given(
    st.binary(max_size=50),
    st.integers(0, len(HEAD) + 20),
    st.binary(max_size=3),
    st.integers(0, 3),
    st.booleans(),
)
def test_whatever_is_known_is_that_head_and_a_whole_body(
    body: bytes, place: int, inserted: bytes, cut: int, seen_before: bool
) -> None:
    whole = HEAD.replace(b": 5", b": %d" % len(body)) + body
    data = whole[:place] + inserted + whole[place + cut :]
    memo = cached_head()
    if seen_before:
        memo.match(whole)

    found = memo.match(data)

    if found is not None:
        before, after = split_at_length(HEAD)
        assert any(data == before + digits + after + found for digits in spellings(len(found)))


def spellings(length: int) -> list[bytes]:
    """Return a length with up to eight leading zeros, which change nothing."""
    return [b"0" * zeros + b"%d" % length for zeros in range(9)]


def test_what_is_more_or_less_than_one_request_is_not_known() -> None:
    memo = cached_head()

    assert memo.match(HEAD + b"12345") == b"12345"
    assert memo.match(HEAD + b"1234") is None
    assert memo.match(HEAD + b"123456") is None
    assert memo.match(HEAD + b"12345" + HEAD + b"12345") is None
    assert memo.match(HEAD.replace(b": 5", b": +5") + b"12345") is None
    assert memo.match(HEAD.replace(b": 5", b": ") + b"") is None
    assert memo.match(HEAD.replace(b": 5", b": 5, 5") + b"12345") is None
    assert memo.match(HEAD.replace(b"A: b", b"A: c") + b"12345") is None


def test_a_body_over_the_limit_is_left_to_the_parser() -> None:
    assert cached_head(limit=4).match(HEAD + b"12345") is None


def test_a_head_without_a_body_is_known_only_to_the_letter() -> None:
    head = b"GET /service/a/x HTTP/1.1\r\nHost: x\r\n\r\n"

    assert cached_head(head).match(head) == b""
    assert cached_head(head).match(head + b"G") is None
    assert cached_head(head).match(head[:-1]) is None


@given(st.lists(st.tuples(st.binary(max_size=12), st.integers(0, 12)), max_size=20))
def test_a_response_head_is_known_with_as_much_of_its_body_as_has_come(
    responses: list[tuple[bytes, int]],
) -> None:
    memo = CachedResponseHead(ANSWER, 200, PASSED_ON)

    for body, come in responses:
        found = memo.match(ANSWER.replace(b":  5", b":  %d" % len(body)) + body[:come])

        passed_on = PASSED_ON.replace(b": 5", b": %d" % len(body))
        assert found == (passed_on, body[:come], max(0, len(body) - come))


def test_surplus_after_a_response_is_left_to_the_parser() -> None:
    memo = CachedResponseHead(ANSWER, 200, PASSED_ON)

    assert memo.match(ANSWER + b"123456") is None
    assert memo.match(ANSWER + b"12345") == (PASSED_ON, b"12345", 0)
    assert memo.match(ANSWER + b"123456") is None
