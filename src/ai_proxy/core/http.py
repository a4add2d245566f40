"""Conventions of HTTP that the data plane and the management application share."""

import re
from math import ceil

from ai_proxy.core.errors import ProxyError

PROBLEM = "application/problem+json"
"""Media type of a problem (RFC 9457)."""

PRINCIPAL, CLIENT = b"x-ai-proxy-principal", b"x-ai-proxy-client"
"""Headers that name a request's principal and its client's address to the management application.

Only the gateway may set them: it removes them from every request that it receives.
"""

MAX_COLLECTED = 16 * 1024 * 1024
"""Most bytes of one response that are collected because they cannot be passed on as they come.

An answer that is translated as a whole, an event of a stream, the arguments of its tool calls.
"""

_REQUEST_ID = re.compile(rb"(?!.*aip_)[0-9A-Za-z._:/+=@-]{1,128}")


def is_sane_request_id(value: bytes) -> bool:
    """Return whether to keep a client's X-Request-ID: short, printable, no API key, and safe in a log line.

    >>> is_sane_request_id(b"req-42@host"), is_sane_request_id(b"a b"), is_sane_request_id(b"aip_1")
    (True, False, False)
    """
    return _REQUEST_ID.fullmatch(value) is not None


def problem(error: ProxyError, request_id: str) -> dict[str, object]:
    """Return the members of the problem that describes an error (RFC 9457).

    >>> problem(ProxyError("the disk is full", retry_after=2.1), "req-42")["retry_after"]
    3
    """
    members: dict[str, object] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }
    if error.retry_after is not None:
        members["retry_after"] = ceil(error.retry_after)
    if error.log_tail:
        members["log_tail"] = list(error.log_tail)
    return members
