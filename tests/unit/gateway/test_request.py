import pytest

from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.wire import Header

HOST: Header = (b"Host", b"x")


def read(
    *headers: Header, method: bytes = b"POST", may_upgrade: bool = False, http10: bool = False
) -> Request:
    request = Request(method, b"/")
    request.is_http10 = http10
    request.read(list(headers), may_upgrade=may_upgrade)
    return request


def test_a_plain_request_is_forwarded_without_what_concerns_this_connection() -> None:
    request = read(HOST, (b"Accept", b"*/*"), (b"Connection", b"keep-alive"), (b"TE", b"trailers"))

    assert b"".join(request.lines) == b"Accept: */*\r\n"
    assert (request.error, request.close, request.has_body) == (None, False, False)


@pytest.mark.parametrize(
    ("kind", "is_json"),
    [
        (b"application/json", True),
        (b"Application/JSON;charset=utf-8", True),
        (b"application/jso", False),
        (b"text/json", False),
        (b"multipart/form-data; boundary=application/json", False),
    ],
)
def test_json_is_told_by_its_content_type(kind: bytes, is_json: bool) -> None:
    assert read(HOST, (b"Content-Type", kind)).is_json is is_json


@pytest.mark.parametrize(
    ("headers", "http10", "refused"),
    [
        ([HOST], False, False),
        ([], False, True),
        ([HOST, HOST], False, True),
        ([], True, False),
        ([HOST, HOST], True, True),
    ],
)
def test_there_must_be_one_host(headers: list[Header], http10: bool, refused: bool) -> None:
    request = read(*headers, http10=http10)

    assert (request.error is not None) is refused
    assert request.close is refused


@pytest.mark.parametrize(
    ("upgrade", "extra", "http10", "taken"),
    [
        (b"websocket", (), False, True),
        (b"h2c", (), False, False),
        (b"H2C, websocket", (), False, False),
        (b"websocket", ((b"Content-Length", b"3"),), False, False),
        (b"websocket", ((b"Transfer-Encoding", b"chunked"),), False, False),
        (b"websocket", ((b"Content-Length", b"0"),), False, True),
        (b"websocket", (), True, False),
    ],
)
def test_an_upgrade_is_taken_only_where_it_can_become_a_tunnel(
    upgrade: bytes,
    extra: tuple[Header, ...],
    http10: bool,
    taken: bool,
) -> None:
    request = read(HOST, (b"Upgrade", upgrade), *extra, may_upgrade=True, http10=http10)

    assert request.upgrade == (upgrade if taken else b"")


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        (b"GET", 0, b"\r\n"),
        (b"DELETE", 0, b"\r\n"),
        (b"POST", 0, b"content-length: 0\r\n\r\n"),
        (b"GET", 7, b"content-length: 7\r\n\r\n"),
        (b"PUT", -1, b"transfer-encoding: chunked\r\n\r\n"),
    ],
)
def test_the_framing_of_a_body(method: bytes, length: int, framing: bytes) -> None:
    assert Request(method, b"/").framing(length) == framing


@pytest.mark.parametrize("header", [(b"Content-Length", b"12"), (b"Transfer-Encoding", b"chunked")])
def test_a_head_of_framing_only_says_what_the_request_said(header: Header) -> None:
    head = read(HOST, (b"Content-Type", b"x"), header).framing_only()

    assert b"\r\n" + header[0].lower() + b": " + header[1] + b"\r\n\r\n" in head
    assert b"content-type" not in head


def test_what_people_see_of_a_request_has_no_query() -> None:
    assert repr(Request(b"GET", b"/service/a?key=secret")) == "<Request [GET /service/a]>"
