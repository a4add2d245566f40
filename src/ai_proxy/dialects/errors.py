"""The message of an error, the same in every dialect."""

from http import HTTPStatus

import msgspec

from ai_proxy.core.errors import ProxyError

LOG_LINES = 5
"""Last lines of a backend's log that a message quotes."""

MAX_QUOTE = 500
"""Longest quotation of an error response without a known message member, in characters."""


def message(error: ProxyError) -> str:
    r"""Return the message of an error, with the end of the backend's log where the error carries it.

    >>> message(ProxyError("llama3 ended with exit code 1", log_tail=["loading", "error: no such file"]))
    'llama3 ended with exit code 1; its last log lines:\nloading\nerror: no such file'
    """
    if not error.log_tail:
        return error.detail
    return "\n".join([f"{error.detail}; its last log lines:", *error.log_tail[-LOG_LINES:]])


def engine_message(body: bytes, status: int) -> str:
    """Return the message of an engine's error response, whichever form the engine uses.

    >>> engine_message(b'{"error":{"message":"no such model","code":404}}', 404)
    'no such model'
    >>> engine_message(b'{"detail":"Not Found"}', 404), engine_message(b'', 503)
    ('Not Found', 'the engine answered 503 Service Unavailable')
    """
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = None
    match decoded:
        case {"error": {"message": str(text)}} | {"error": str(text)} if text:
            return text
        case {"detail": str(text)} | {"message": str(text)} if text:
            return text
    if quote := body[:MAX_QUOTE].decode("utf-8", "replace").strip():
        return quote
    phrase = HTTPStatus(status).phrase if status in HTTPStatus else ""
    return f"the engine answered {status} {phrase}".rstrip()
