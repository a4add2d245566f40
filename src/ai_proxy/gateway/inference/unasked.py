"""Usage that the proxy asked an engine for, taken out of a stream for a client that did not ask."""

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


class UnaskedUsage:
    """Passes the events of a stream on as they came, but for the one that only reports usage.

    Implements `dialects.translation.Translation`.

    Args:
        path: That the engine is asked on.
        request_id: Of the request, for errors.
    """

    streamed = True
    media_type = b"text/event-stream"

    def __init__(self, path: str, request_id: str) -> None:
        self.path = path
        self.request = b""  # what is sent is what came, but for one option
        self._request_id = request_id
        self._held = bytearray()

    def whole(self, body: bytes) -> bytes:
        """Return a response that is no stream as it is."""
        return body

    def refusal(self, status: int, body: bytes) -> bytes:  # noqa: ARG002 - as in the protocol
        """Return the engine's error as it is."""
        return body

    def feed(self, data: bytes) -> bytes:
        """Return the events that are complete; the rest waits.

        Raises:
            UpstreamInvalidError: An event does not end.
        """
        held = self._held
        start = max(0, len(held) - 3)
        held += data
        end = max(at + len(mark) if (at := held.rfind(mark, start)) >= 0 else 0 for mark in _ENDS)
        events = bytes(held[:end])
        del held[:end]
        if len(held) > MAX_COLLECTED:
            raise UpstreamInvalidError("an event of the engine's stream does not end")
        if b'"usage"' not in events:
            return events
        return b"".join(event for event in _AFTER_EVENT.split(events) if not only_reports(event))

    def finish(self) -> bytes:
        """Return what came behind the last event."""
        return bytes(self._held)

    def failure(self, error: ProxyError) -> bytes:
        """Return the event that reports an error."""
        return openai.error_event(error, self._request_id)


def only_reports(event: bytes) -> bool:
    r"""Return whether an event reports usage and nothing else.

    >>> only_reports(b'data: {"choices":[],"usage":{"prompt_tokens":7}}\n\n')
    True
    >>> only_reports(b'data: {"choices":[{}],"usage":{}}\n\n'), only_reports(b'data: {"usage":null}\n\n')
    (False, False)
    """
    for one in sse.Parser().feed(event):
        try:
            return not msgspec.json.decode(one.data, type=_Chunk).choices
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
    return False
