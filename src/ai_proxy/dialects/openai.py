"""Errors in the form of OpenAI's API."""

from ai_proxy.core.errors import InvalidRequestError, ProxyError
from ai_proxy.dialects.body import encode
from ai_proxy.dialects.errors import message

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "overloaded"}
"""Error types by status; other 4xx are `invalid_request_error`, other 5xx `server_error`."""


def error_type(status: int) -> str:
    """Return the error type for a status.

    >>> error_type(404), error_type(429), error_type(502)
    ('invalid_request_error', 'rate_limit_error', 'server_error')
    """
    return TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")


def error_body(error: ProxyError, request_id: str) -> bytes:
    """Return the body of an error response."""
    param = error.param if isinstance(error, InvalidRequestError) else ""
    members = {
        "message": message(error),
        "type": error_type(error.status),
        "code": error.code,
        "param": param or None,
        "request_id": request_id,
    }
    return encode({"error": members})


def error_event(error: ProxyError, request_id: str) -> bytes:
    """Return the event that reports an error in a stream that has begun."""
    return b"data: %s\n\n" % error_body(error, request_id)
