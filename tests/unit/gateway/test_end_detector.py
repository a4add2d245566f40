import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.dialects.streams import pieces

from ai_proxy.core.http import MAX_COLLECTED
from ai_proxy.gateway.http.upstream import SLICE
from ai_proxy.gateway.inference.end_detector import KEPT, EndDetector, end_detector

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"Content-Type", b"application/json")]


def watched(headers: list[tuple[bytes, bytes]], *data: bytes) -> EndDetector:
    detector = end_detector(headers)
    assert detector is not None
    for piece in data:
        detector.feed(piece)
    return detector


@settings(deadline=None)
@given(st.lists(st.integers(0, 60)))
def test_an_end_is_recognised_however_it_comes(cuts: list[int]) -> None:
    stream = b'data: {"a":1}\r\n\r\ndata: {"b":2}\r\n\r\ndata: [DONE]\r\n\r\n'
    within = [cut for cut in cuts if cut <= len(stream)]

    assert watched(EVENTS, *pieces(stream, within)).is_complete
    assert not watched(EVENTS, *pieces(stream[:-16], [cut for cut in within if cut < 30])).is_complete


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
@pytest.mark.parametrize("headers", [EVENTS, JSON], ids=["events", "JSON"])
def test_a_body_that_is_too_long_to_be_kept_has_no_end_that_is_known(
    headers: list[tuple[bytes, bytes]],
) -> None:
    detector = watched(headers, *[b"1" * (MAX_COLLECTED // 2 + 1)] * 2)

    assert not detector.is_complete
    assert len(detector._kept) < MAX_COLLECTED


def test_a_stream_is_known_again_after_an_event_that_was_too_long() -> None:
    assert watched(EVENTS, b"x" * (MAX_COLLECTED + 1), b"\n\ndata: [DONE]\n\n").is_complete


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
@pytest.mark.parametrize("unit", [b"x", b"\n", b"x\n", b'"choices":[]', b'"done" '])
def test_the_end_detector_keeps_a_bounded_part_of_an_endless_event(unit: bytes) -> None:
    detector = watched(EVENTS, *[unit * (SLICE // len(unit))] * 100)

    assert len(detector._kept) <= 2 * KEPT + 1
    assert not detector.is_complete


@pytest.mark.parametrize(
    ("begun", "end"),
    [
        (b'event: response.completed\ndata: {"type":"response.completed","text":"', b'"}'),
        (b'data: {"content":"', b'","stop":true}'),
    ],
)
def test_a_long_last_event_says_at_either_end_that_it_is_the_last(begun: bytes, end: bytes) -> None:
    text = [b"word " * 3000] * 20

    assert watched(EVENTS, b"data: {}\n\n", begun, *text, end + b"\n\n").is_complete
    assert not watched(EVENTS, b"data: {}\n\n", begun, *text).is_complete
    assert not watched(EVENTS, begun, *text, end + b"\n\ndata: {}\n\n").is_complete
