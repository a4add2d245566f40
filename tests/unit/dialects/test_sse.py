import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.dialects.streams import cuts, pieces, recorded

from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.dialects.sse import COMMENT, Event, Parser


def parse(*stream: bytes) -> list[Event]:
    parser = Parser()
    return [event for piece in stream for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"data: a\n\n", [("message", b"a")]),
        (b"data:a\r\rdata:b\r\n\r\n", [("message", b"a"), ("message", b"b")]),
        (b"data:  a\n\n", [("message", b" a")]),
        (b"data: a\ndata\ndata: b\n\n", [("message", b"a\n\nb")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [("error", b"a"), ("message", b"b")]),
        (b": loading llama3\n\ndata: a\n\n", [("message", b"a")]),
        (b"id: 1\nretry: 10\nunknown: x\ndata: a\n\n", [("message", b"a")]),
        (b"event: nothing\n\ndata: a\n\n", [("message", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", b"a")]),
        (b"data: a\n\ndata: cut short\n", [("message", b"a")]),
        (b"data: a: b\n\n", [("message", b"a: b")]),
        (b"data: \xe2\x80\xa8\x0b\x1c\x85\n\n", [("message", b"\xe2\x80\xa8\x0b\x1c\x85")]),
        (b"", []),
    ],
)
def test_finds_the_events_of_a_stream(stream: bytes, found: list[tuple[str, bytes]]) -> None:
    assert parse(stream) == found


def test_comments_are_events_for_those_who_ask() -> None:
    parser = Parser(comments=True)
    events = list(parser.feed(b": loading llama3 12 s\n\ndata: a\n:\n\n"))
    assert events == [(COMMENT, b"loading llama3 12 s"), (COMMENT, b""), ("message", b"a")]


@given(st.data())
@pytest.mark.parametrize("name", ["llamacpp_chat.sse", "vllm_chat.sse", "ollama_openai_chat.sse"])
def test_finds_the_same_events_however_a_recorded_stream_is_cut(name: str, data: st.DataObject) -> None:
    stream = recorded(name)
    assert parse(*pieces(stream, data.draw(cuts(stream)))) == parse(stream)


line_ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
fragments = st.sampled_from(
    [b"data", b"event", b":", b" ", b"x", b"\xc3", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf"]
)


@given(st.lists(fragments, max_size=40).map(b"".join), st.data())
def test_finds_the_same_events_however_any_stream_is_cut(stream: bytes, data: st.DataObject) -> None:
    assert parse(*pieces(stream, data.draw(cuts(stream)))) == parse(stream)


@given(st.lists(fragments, max_size=40).map(b"".join))
@example(b"data: a\r\n\r\n")
def test_finds_the_same_events_byte_by_byte(stream: bytes) -> None:
    assert parse(*(bytes([byte]) for byte in stream)) == parse(stream)


@given(st.lists(st.lists(st.binary().filter(lambda b: not set(b) & set(b"\r\n")), min_size=1)), line_ends)
def test_finds_what_was_sent(sent: list[list[bytes]], end: bytes) -> None:
    stream = b"".join(b"".join(b"data: " + line + end for line in event) + end for event in sent)
    assert [event.data for event in parse(stream)] == [b"\n".join(event) for event in sent]


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, b"data: xx\n" * 20, b":" * 101 + b"\n"])
def test_an_event_over_the_limit_ends_the_stream(stream: bytes) -> None:
    with pytest.raises(UpstreamInvalidError, match="longer than 100 bytes"):
        list(Parser(max_event=100).feed(stream))


def test_events_before_one_that_is_too_long_are_found() -> None:
    feed = Parser(max_event=10).feed(b"data: a\n\ndata: " + b"x" * 10)
    assert next(feed).data == b"a"
    with pytest.raises(UpstreamInvalidError):
        next(feed)


def test_comments_and_small_events_never_reach_the_limit() -> None:
    parser = Parser(max_event=20)
    assert [e.data for _ in range(100) for e in parser.feed(b": still here\n: and here\ndata: a\n\n")] == [
        b"a"
    ] * 100


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
def test_a_line_in_many_small_pieces_takes_no_more_memory_than_it_is_long() -> None:
    parser = Parser()

    tracemalloc.start()
    for number in range(20_000):
        assert not list(parser.feed(b"%04x" % number))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 3 * 4 * 20_000
