"""Errors in the form of Anthropic's API."""

from ai_proxy.core.errors import ProxyError
from ai_proxy.dialects.body import encode
from ai_proxy.dialects.errors import message

TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Error types by status; other 4xx are `invalid_request_error`, other 5xx `api_error`."""


def error_type(status: int) -> str:
    """Return the error type for a status.

    >>> error_type(422), error_type(503), error_type(502)
    ('invalid_request_error', 'overloaded_error', 'api_error')
    """
    return TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")


def error_body(error: ProxyError, request_id: str) -> bytes:
    """Return the body of an error response."""
    return render(error.status, message(error), request_id)


def error_event(error: ProxyError, request_id: str) -> bytes:
    """Return the event that reports an error in a stream that has begun."""
    return b"event: error\ndata: %s\n\n" % error_body(error, request_id)


def render(status: int, text: str, request_id: str) -> bytes:
    """Return the body of an error response for a status and a message."""
    members = {"type": error_type(status), "message": text}
    return encode({"type": "error", "error": members, "request_id": request_id or None})
