import json

from ai_proxy.core.errors import QueueFullError, UnknownServiceError
from ai_proxy.gateway.http.respond import error_response


def test_a_problem_says_all_there_is_to_say() -> None:
    error = QueueFullError("100 requests wait", retry_after=2.1, log_tail=("loading", "é"))

    response, size = error_response(error, b"id-1", None, head_only=False, close=True)

    head, _, body = response.partition(b"\r\n\r\n")
    assert len(body) == size
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    for line in (
        b"content-length: %d" % size,
        b"x-ai-proxy-error: queue_full",
        b"x-request-id: id-1",
        b"retry-after: 3",
        b"connection: close",
    ):
        assert line in head.split(b"\r\n")
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Queue full",
        "status": 503,
        "detail": "100 requests wait",
        "code": "queue_full",
        "request_id": "id-1",
        "retry_after": 3,
        "log_tail": ["loading", "é"],
    }


def test_a_problem_for_head_has_the_length_but_not_the_body() -> None:
    whole, size = error_response(UnknownServiceError("x"), b"1", None, head_only=False, close=False)
    head, none = error_response(UnknownServiceError("x"), b"1", None, head_only=True, close=False)

    assert none == 0
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % size in head
    assert b"connection" not in whole


def test_a_name_cannot_break_out_of_a_problem() -> None:
    response, size = error_response(
        UnknownServiceError('x"\r\nSet-Cookie: a'), b"1", None, head_only=False, close=False
    )

    assert b"\r\nSet-Cookie" not in response
    assert json.loads(response[-size:])["code"] == "unknown_service"
