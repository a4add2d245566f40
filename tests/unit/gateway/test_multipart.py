from itertools import pairwise

import pytest
from hypothesis import given, settings
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


def feed_pieces(field: ModelField, form: bytes, size: int) -> None:
    for at in range(0, len(form), size):
        field.feed(form[at : at + size])


SECOND = {
    "at once": b'Content-Disposition: form-data; name="model"',
    "in capitals": b"content-disposition: form-data; NAME=MODEL",
    "with another parameter first": b'Content-Disposition: form-data; x="; name=a"; name="model"',
    "as a file": b'Content-Disposition: form-data; name="model"; filename="a"',
    "in the extended notation": b"Content-Disposition: form-data; name*=utf-8''model",
    "in a continued parameter": b"Content-Disposition: form-data; name*0=mod; name*1=el",
    "with two names": b'Content-Disposition: form-data; name="a"; name="model"',
    "in a second header": b'Content-Disposition: form-data; name="a"\r\n'
    b'Content-Disposition: form-data; name="model"',
    "behind a bare line feed": b'A: b\nContent-Disposition: form-data; name="model"',
    "with an escape": b'Content-Disposition: form-data; name="mod\\el"',
    "percent-encoded": b'Content-Disposition: form-data; name="%6dodel"',
    "in a folded line": b'Content-Disposition: form-data;\r\n name="model"',
}


@pytest.mark.threat("a limited key", "another model's answers")
@pytest.mark.parametrize("head", SECOND.values(), ids=SECOND)
@settings(deadline=None)
@given(size=st.integers(1, 400))
def test_a_second_model_part_is_found_in_every_spelling_and_split(head: bytes, size: int) -> None:
    first = b'--a+b\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmall\r\n--a+b\r\n'
    file = b'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\nRIFF\r\n--a+b\r\n'
    form = first + file + head + b"\r\n\r\nlarge\r\n--a+b--\r\n"
    field = ModelField(BOUNDARY)

    with pytest.raises(InvalidRequestError):
        feed_pieces(field, form, size)

    assert field.model in (None, "small")


OTHER_READINGS = {
    "a boundary behind a bare line feed": b"RIFF\n--a+b\r\n",
    "a boundary before a bare line feed": b"RIFF\r\n--a+b\n",
    "a boundary behind the end": b"RIFF\r\n--a+b--\r\n--a+b\r\n",
    "something behind a boundary": b"RIFF\r\n--a+b x\r\n",
}


@pytest.mark.threat("a limited key", "another model's answers")
@pytest.mark.parametrize("content", OTHER_READINGS.values(), ids=OTHER_READINGS)
@settings(deadline=None)
@given(size=st.integers(1, 200))
def test_a_form_with_ambiguous_boundaries_is_refused(content: bytes, size: int) -> None:
    form = (
        b'--a+b\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmall\r\n'
        b'--a+b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + content
    ) + b'Content-Disposition: form-data; name="model"\r\n\r\nlarge\r\n--a+b--\r\n'
    field = ModelField(BOUNDARY)

    with pytest.raises(InvalidRequestError):
        feed_pieces(field, form, size)


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
def test_nothing_is_kept_of_a_long_file() -> None:
    field = ModelField(BOUNDARY)
    field.feed(b'--a+b\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmall\r\n--a+b\r\n\r\n')
    held = len(field.held)

    for _ in range(100):
        field.feed(b"\r\n--a+" * 10_000)

    assert len(field.held) == held
    assert len(field._parts._data) < 100


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
def test_headers_of_a_part_that_do_not_end_are_refused() -> None:
    field = ModelField(BOUNDARY)
    field.feed(b'--a+b\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmall\r\n--a+b\r\n')

    with pytest.raises(InvalidRequestError, match="headers of a form part"):
        feed_pieces(field, (b"x: " + b"y" * 100 + b"\r\n") * 1000, 105)


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


def test_a_boundary_among_the_headers_of_a_part_is_refused() -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n--b\r\n\r\nm\r\n--b--\r\n'

    with pytest.raises(InvalidRequestError, match="colon"):
        ModelField(b"b").feed(form)


@pytest.mark.threat("a limited key", "another model's answers")
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\r", b"\n", b"\r\nno header\r\n"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_second_model_behind_malformed_part_headers_is_refused_before_it_is_forwarded(
    end: bytes, size: int
) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="model"'
    form = head + b"\r\n\r\nm\r\n" + head + end + b"other\r\n--b--\r\n"
    field, passed = ModelField(b"b"), bytearray()

    def upload() -> None:
        for start in range(0, len(form), size):
            field.feed(form[start : start + size])
            passed.extend(form[start : start + size])

    with pytest.raises(InvalidRequestError, match=r"CR LF|colon"):
        upload()
    assert b"other" not in passed


def test_a_form_that_ends_among_headers_is_refused() -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="model"'
    field = ModelField(b"b")
    field.feed(head + b"\r\n\r\nm\r\n" + head)

    with pytest.raises(InvalidRequestError, match="headers"):
        field.end()


@pytest.mark.threat("a limited key", "another model's answers")
@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: name="model"',
        b'Content-Disposition: form-data; x"; filename="; name="model"',
        b'Content-Disposition: form-data; name="model',
        b'Content-Disposition: form-data; name="language"\r\n; name="model": x',
        b'Content-Disposition: form-data; name="language"\r\n--b',
    ],
)
def test_headers_that_could_be_read_in_two_ways_are_refused(head: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        ModelField(b"b").feed(b"--b\r\n" + head + b"\r\n\r\nm\r\n--b--\r\n")


@pytest.mark.threat("a limited key", "another model's answers")
def test_spaces_around_the_equals_sign_of_a_parameter_hide_no_name() -> None:
    field = ModelField(b"b")

    field.feed(b'--b\r\nContent-Disposition: form-data; name = "model"\r\n\r\nm\r\n--b--\r\n')

    assert field.model == "m"
