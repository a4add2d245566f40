from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.http import is_sane_request_id


@given(st.binary(max_size=200))
def test_a_sane_request_id_cannot_break_a_header_or_a_log(value: bytes) -> None:
    if is_sane_request_id(value):
        assert value.decode("ascii").isprintable()
        assert not set(value) & set(b" \r\n\"'<>")
        assert 1 <= len(value) <= 128
