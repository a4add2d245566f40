"""Removes the usage event from a stream whose client did not ask for usage: the proxy did."""

import re

import msgspec
from msgspec import Raw, Struct

from ai_proxy.core.errors import ProxyError, UpstreamInvalidError
from ai_proxy.core.http import MAX_COLLECTED
from ai_proxy.dialects import openai, sse

_ENDS = (b"\n\n", b"\r\n\r\n")
_AFTER_EVENT = re.compile(rb"(?<=\n\n)|(?<=\n\r\n)")


class _Chunk(Struct):
    """A chunk of a stream, as far as it is read."""

    choices: list[Raw]
    usage: dict[str, Raw]


class UsageFilter:
    """Passes the events of a stream on unchanged, except the one that only reports usage.

    Implements `dialects.translation.Translation`.

    Args:
        path: The engine's endpoint.
        request_id: The request's id, for errors.
    """

    streamed = True
    media_type = b"text/event-stream"

    def __init__(self, path: str, request_id: str) -> None:
        self.path = path
        self.request = b""  # what is sent is what came, but for one option
        self._request_id = request_id
        self._held = bytearray()

    def whole(self, body: bytes) -> bytes:
        """Return a response that is not a stream, unchanged."""
        return body

    def refusal(self, status: int, body: bytes) -> bytes:  # noqa: ARG002 - as in the protocol
        """Return the engine's error, unchanged."""
        return body

    def feed(self, data: bytes) -> bytes:
        """Return the events that are complete, and keep the rest.

        Raises:
            UpstreamInvalidError: An event is too large.
        """
        held = self._held
        start = max(0, len(held) - 3)
        held += data
        end = max(at + len(mark) if (at := held.rfind(mark, start)) >= 0 else 0 for mark in _ENDS)
        events = bytes(held[:end])
        del held[:end]
        if len(held) > MAX_COLLECTED:
            raise UpstreamInvalidError(f"an event of the engine's stream has more than {MAX_COLLECTED} bytes")
        if b'"usage"' not in events:
            return events
        return b"".join(event for event in _AFTER_EVENT.split(events) if not is_usage_only(event))

    def finish(self) -> bytes:
        """Return what came after the last complete event."""
        return bytes(self._held)

    def failure(self, error: ProxyError) -> bytes:
        """Return the event that reports an error."""
        return openai.error_event(error, self._request_id)


def is_usage_only(event: bytes) -> bool:
    r"""Return whether an event reports usage and nothing else.

    >>> is_usage_only(b'data: {"choices":[],"usage":{"prompt_tokens":7}}\n\n')
    True
    >>> is_usage_only(b'data: {"choices":[{}],"usage":{}}\n\n'), is_usage_only(b'data: {"usage":null}\n\n')
    (False, False)
    """
    for one in sse.Parser().feed(event):
        try:
            return not msgspec.json.decode(one.data, type=_Chunk).choices
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
    return False
