"""Responses of the proxy's own making. Pure: facts in, bytes out."""

import json
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from math import ceil

from ai_proxy.core.errors import ProxyError
from ai_proxy.core.http import PROBLEM, problem
from ai_proxy.gateway.http.wire import status_line

JSON = b"application/json"
STRICT_TRANSPORT = b"strict-transport-security: max-age=31536000\r\n"
"""Has browsers use https alone for a year (RFC 6797 section 6.1)."""


@dataclass(frozen=True, slots=True)
class LocalResponse:
    """A response that needs nothing of a request but its head.

    Attributes:
        status: HTTP status.
        lines: Header lines beside those that every response has, each with its line end.
        body: Sent with its length; a 204 has none.
    """

    status: int
    lines: bytes = b""
    body: bytes = b""

    def render(self, request_id: bytes, *, head_only: bool, close: bool) -> tuple[bytes, int]:
        """Return the whole response, and how many bytes of it are its body.

        Args:
            request_id: Sent in `X-Request-ID`.
            head_only: Whether the request was a HEAD.
            close: Whether the connection ends with this response.
        """
        lines = self.lines if self.status == HTTPStatus.NO_CONTENT else self.lines + _length(self.body)
        return _render(self.status, request_id, lines, self.body, head_only=head_only, close=close)


def error_response(
    error: ProxyError,
    request_id: bytes,
    body: bytes | None,
    *,
    head_only: bool,
    close: bool,
    extra: bytes = b"",
) -> tuple[bytes, int]:
    """Render an error as a whole response, marked as the proxy's own.

    Args:
        error: What went wrong.
        request_id: Sent in `X-Request-ID`.
        body: Describes the error in the client's dialect, as JSON; None for a problem (RFC 9457).
        head_only: Whether the request was a HEAD.
        close: Whether the connection ends with this response.
        extra: Header lines to add.

    Returns:
        The bytes of the response, and how many of them are its body.
    """
    media_type = JSON
    if body is None:
        members = problem(error, request_id.decode())
        body, media_type = json.dumps(members, ensure_ascii=False).encode(), PROBLEM.encode()
    lines = [
        b"content-type: %b\r\n" % media_type,
        _length(body),
        b"x-ai-proxy-error: %b\r\n" % error.code.encode(),
    ]
    if error.retry_after is not None:
        lines.append(b"retry-after: %d\r\n" % ceil(error.retry_after))
    if error.status == HTTPStatus.UNAUTHORIZED:
        lines.append(b'www-authenticate: Bearer realm="ai-proxy"\r\n')
    lines.append(extra)
    return _render(error.status, request_id, b"".join(lines), body, head_only=head_only, close=close)


def stream_head(media_type: bytes, request_id: bytes, extra: bytes, *, is_http10: bool, close: bool) -> bytes:
    """Return the head of a stream that the proxy begins, before or in place of the backend's own.

    Args:
        media_type: Of the stream.
        request_id: Sent in `X-Request-ID`.
        extra: Header lines to add.
        is_http10: Whether the client speaks HTTP/1.0, which has no chunks.
        close: Whether the connection ends with this response.
    """
    lines = b"content-type: %b\r\ncache-control: no-cache\r\n%b" % (media_type, extra)
    if not is_http10:
        lines += b"transfer-encoding: chunked\r\n"
    head, _ = _render(HTTPStatus.OK, request_id, lines, b"", head_only=True, close=close or is_http10)
    return head


def _render(
    status: int, request_id: bytes, lines: bytes, body: bytes, *, head_only: bool, close: bool
) -> tuple[bytes, int]:
    head = b"%b\r\n%bx-request-id: %b\r\ndate: %b\r\n%b\r\n" % (
        status_line(status),
        lines,
        request_id,
        formatdate(usegmt=True).encode(),
        b"connection: close\r\n" if close else b"",
    )
    return (head, 0) if head_only else (head + body, len(body))


def _length(body: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(body)
