import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.durations import format_duration, parse_duration


@given(st.integers(0, 10**11))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000

    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "1x", "m", "5 m", "10m5", "-1s", "1m1h", "1s1s", "1e3s", "٣s", "00", "1s\n"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_milliseconds_are_not_minutes() -> None:
    assert (parse_duration("5ms"), parse_duration("5m")) == (0.005, 300.0)
