from hypothesis import given, settings
from hypothesis import strategies as st

from ai_proxy.core.logring import MAX_LINE
from ai_proxy.runtimes.lines import MAX_LINES, LineSplitter


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20), max_size=20),
    st.data(),
)
def test_lines_come_out_whole_whatever_portions_they_come_in(lines: list[str], data: st.DataObject) -> None:
    stream = "".join(f"{line}\n" for line in lines).encode(errors="replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    splitter = LineSplitter()
    result = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        result += splitter.feed(stream[start:end])
    assert result + splitter.flush() == lines


@settings(deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=20))
def test_anything_can_be_fed(portions: list[bytes]) -> None:
    splitter = LineSplitter()
    for portion in portions:
        assert all("\n" not in line for line in splitter.feed(portion))
    assert len(splitter.flush()) <= 1


def test_a_line_without_end_is_cut_and_takes_bounded_memory() -> None:
    splitter = LineSplitter()
    for _ in range(1000):
        assert splitter.feed("ä".encode() * 8192) == []
    (line,) = splitter.feed(b"\n")
    assert line == "ä" * MAX_LINE


def test_of_a_flood_of_short_lines_the_last_are_kept() -> None:
    lines = LineSplitter().feed(b"".join(b"%d\n" % number for number in range(3000)))
    assert lines[0] == f"... {3000 - MAX_LINES} lines left out ..."
    assert lines[-1] == "2999"


def test_the_last_line_needs_no_end() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"no end\r") == []
    assert splitter.flush() == ["no end"]
