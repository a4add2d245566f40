"""Responses of the proxy's own making."""

import json
from email.utils import formatdate
from http import HTTPStatus
from math import ceil

from ai_proxy.core.errors import ProxyError
from ai_proxy.gateway.wire import status_line

PROBLEM, JSON = b"application/problem+json", b"application/json"


def problem(
    error: ProxyError, request_id: bytes, *, head_only: bool, close: bool, extra: bytes = b""
) -> tuple[bytes, int]:
    """Render an error as a whole response (RFC 9457), marked as the proxy's own.

    Args:
        error: What went wrong.
        request_id: Sent in `X-Request-ID` and in the body.
        head_only: Whether the request was a HEAD.
        close: Whether the connection ends with this response.
        extra: Header lines to add.

    Returns:
        The bytes of the response, and how many of them are its body.
    """
    body = json.dumps(_members(error, request_id), ensure_ascii=False).encode()
    return refusal(error, request_id, body, PROBLEM, head_only=head_only, close=close, extra=extra)


def refusal(
    error: ProxyError,
    request_id: bytes,
    body: bytes,
    media_type: bytes,
    *,
    head_only: bool,
    close: bool,
    extra: bytes = b"",
) -> tuple[bytes, int]:
    """Render an error as a whole response, marked as the proxy's own.

    Args:
        error: What went wrong.
        request_id: Sent in `X-Request-ID`.
        body: Tells of the error in the client's own dialect.
        media_type: Of that body.
        head_only: Whether the request was a HEAD.
        close: Whether the connection ends with this response.
        extra: Header lines to add.

    Returns:
        The bytes of the response, and how many of them are its body.
    """
    lines = [
        status_line(error.status),
        b"content-type: " + media_type,
        b"content-length: %d" % len(body),
        b"x-ai-proxy-error: " + error.code.encode(),
        b"x-request-id: " + request_id,
        b"date: " + formatdate(usegmt=True).encode(),
    ]
    if error.retry_after is not None:
        lines.append(b"retry-after: %d" % ceil(error.retry_after))
    if error.status == HTTPStatus.UNAUTHORIZED:
        lines.append(b'www-authenticate: Bearer realm="ai-proxy"')
    if close:
        lines.append(b"connection: close")
    head = b"\r\n".join([*lines, extra + b"\r\n"])
    return (head, 0) if head_only else (head + body, len(body))


def _members(error: ProxyError, request_id: bytes) -> dict[str, object]:
    members: dict[str, object] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id.decode("ascii", "replace"),
    }
    if error.retry_after is not None:
        members["retry_after"] = ceil(error.retry_after)
    if error.log_tail:
        members["log_tail"] = list(error.log_tail)
    return members
