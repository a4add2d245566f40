import struct

from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.runtimes.docker.logs import Frames, nanoseconds

WRITTEN = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=10)


@given(written=WRITTEN, size=st.integers(1, 20))
def test_frames_are_found_in_whatever_portions_they_come(written: list[tuple[int, bytes]], size: int) -> None:
    data = b"".join(struct.pack(">BxxxL", stream, len(text)) + text for stream, text in written)
    frames = Frames()
    found = [
        frame for start in range(0, len(data), size) for frame in frames.feed(data[start : start + size])
    ]
    assert found == written


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999))
def test_time_stamps_lose_nothing(seconds: int, nanos: int) -> None:
    from datetime import UTC, datetime

    stamp = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"
    assert nanoseconds(stamp) == seconds * 10**9 + nanos
