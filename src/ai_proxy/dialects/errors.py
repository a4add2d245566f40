"""The words of an error, the same in every dialect."""

from http import HTTPStatus

import msgspec

from ai_proxy.core.errors import ProxyError

LOG_LINES = 5
"""Last lines of a backend's log that are quoted in a message."""

MAX_QUOTE = 500
"""Longest quotation of an answer that says nothing in a known place, in characters."""


def message(error: ProxyError) -> str:
    r"""Return what an error says to people, with the end of the backend's log where that explains it.

    >>> message(ProxyError("llama3 ended with exit code 1", log_tail=["loading", "error: no such file"]))
    'llama3 ended with exit code 1; its last log lines:\nloading\nerror: no such file'
    """
    if not error.log_tail:
        return error.detail
    return "\n".join([f"{error.detail}; its last log lines:", *error.log_tail[-LOG_LINES:]])


def engine_message(body: bytes, status: int) -> str:
    """Return what an engine says in an error, wherever it says it.

    >>> engine_message(b'{"error":{"message":"no such model","code":404}}', 404)
    'no such model'
    >>> engine_message(b'{"detail":"Not Found"}', 404), engine_message(b'', 503)
    ('Not Found', 'the engine answered 503 Service Unavailable')
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    return find_words(said) or body[:MAX_QUOTE].decode("utf-8", "replace").strip() or _by_status(status)


def find_words(said: object) -> str:
    """Return the message in a decoded error of an engine; empty when it is in none of the known places."""
    match said:
        case {"error": {"message": str(words)}} | {"error": str(words)}:
            return words
        case {"detail": str(words)} | {"message": str(words)}:
            return words
    return ""


def _by_status(status: int) -> str:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus else ""
    return f"the engine answered {status} {phrase}".rstrip()
