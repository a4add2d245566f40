from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.errors import InvalidRequestError
from ai_proxy.gateway.http.multipart import MAX_AHEAD, ModelField, boundary_of

BOUNDARY = b"a+b"
FORM = (
    b"a preamble\r\n"
    b"--a+b\r\n\r\nno headers\r\n"
    b'--a+b\r\nContent-Disposition: form-data;\r\n name="prompt"\r\n\r\n--a+bc\r\n--a+\r\n'
    b'--a+b\r\nX: name="x"\r\ncontent-disposition: form-data; name=model\r\n\r\nwhisper-\xc3\xa9\r\n'
    b'--a+b\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\nRIFF\r\n--a+b--\r\n'
)


@given(st.lists(st.integers(0, len(FORM)), max_size=20))
def test_the_model_is_found_however_the_form_is_cut(cuts: list[int]) -> None:
    field = ModelField(BOUNDARY)
    points = [0, *sorted(cuts), len(FORM)]

    for start, end in pairwise(points):
        if not field.feed(FORM[start:end]):
            continue
        assert field.model == "whisper-é"
        renamed = field.renamed("m") + FORM[end:]
        assert renamed == FORM.replace("whisper-é".encode(), b"m")
        return
    pytest.fail("it was not found")


@given(st.binary(max_size=200), st.lists(st.sampled_from([b"--a+b", b"\r\n", b"--", b": ", b'name="model"'])))
def test_anything_is_read_or_refused(data: bytes, parts: list[bytes]) -> None:
    field = ModelField(BOUNDARY)

    try:
        for part in (data, *parts, data):
            field.feed(part)
        field.end()
    except InvalidRequestError:
        assert field.model is None


def test_an_empty_model_is_empty_and_may_be_named() -> None:
    field = ModelField(BOUNDARY)

    field.feed(b'--a+b\r\nContent-Disposition: form-data; name="model"\r\n\r\n\r\n--a+b--')

    assert field.model == ""
    assert b"\r\n\r\nm\r\n--a+b--" in field.renamed("m")


def test_a_model_is_not_looked_for_without_end() -> None:
    field = ModelField(BOUNDARY)

    for _ in range(MAX_AHEAD):
        field.feed(b"\n")

    with pytest.raises(InvalidRequestError, match="not in the first"):
        field.feed(b"\n")


BAD_TYPES = (
    b"multipart/form-data",
    b"multipart/form-data; boundary=",
    b'm; boundary="a "',
    b"m; boundary=\xff",
)


@pytest.mark.parametrize("content_type", BAD_TYPES)
def test_a_boundary_that_is_none_is_refused(content_type: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        boundary_of(content_type)
