"""Errors as Ollama tells them: `{"error": "text"}`, in a stream as a line of it."""

from ai_proxy.core.errors import ProxyError
from ai_proxy.dialects.body import encode
from ai_proxy.dialects.errors import message


def error_body(error: ProxyError) -> bytes:
    """Return the body of an answer that tells of an error."""
    return render(message(error))


def render(words: str) -> bytes:
    r"""Return the body of an answer that tells of an error, in its words.

    >>> render("model 'tiny' not found")
    b'{"error":"model \'tiny\' not found"}'
    """
    return encode({"error": words})
