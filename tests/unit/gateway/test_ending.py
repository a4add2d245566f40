import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.dialects.streams import pieces

from ai_proxy.core.http import MAX_COLLECTED
from ai_proxy.gateway.inference.ending import Ending, ending_of

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"Content-Type", b"application/json")]


def watched(headers: list[tuple[bytes, bytes]], *data: bytes) -> Ending:
    ending = ending_of(headers)
    assert ending is not None
    for piece in data:
        ending.see(piece)
    return ending


@settings(deadline=None)
@given(st.lists(st.integers(0, 60)))
def test_an_end_is_recognised_however_it_comes(cuts: list[int]) -> None:
    stream = b'data: {"a":1}\r\n\r\ndata: {"b":2}\r\n\r\ndata: [DONE]\r\n\r\n'
    within = [cut for cut in cuts if cut <= len(stream)]

    assert watched(EVENTS, *pieces(stream, within)).is_reached
    assert not watched(EVENTS, *pieces(stream[:-16], [cut for cut in within if cut < 30])).is_reached


@pytest.mark.threat("a backend", "the memory or the time of the proxy")
@pytest.mark.parametrize("headers", [EVENTS, JSON], ids=["events", "JSON"])
def test_a_body_that_is_too_long_to_be_kept_has_no_end_that_is_known(
    headers: list[tuple[bytes, bytes]],
) -> None:
    ending = watched(headers, *[b"1" * (MAX_COLLECTED // 2 + 1)] * 2)

    assert not ending.is_reached
    assert len(ending._kept) < MAX_COLLECTED


def test_a_stream_is_known_again_after_an_event_that_was_too_long() -> None:
    assert watched(EVENTS, b"x" * (MAX_COLLECTED + 1), b"\n\ndata: [DONE]\n\n").is_reached
