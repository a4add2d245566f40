"""Detects whether a body is complete that ends with its connection: the engine may have died instead."""

import re

import msgspec

from ai_proxy.core.http import MAX_COLLECTED
from ai_proxy.dialects import sse
from ai_proxy.gateway.http.wire import Header

_SEPARATORS = {
    b"text/event-stream": b"\n\n",
    b"application/x-ndjson": b"\n",
    b"application/jsonl": b"\n",
}
"""What separates the events of a stream, by media type."""

_FINAL = re.compile(
    rb"^data: ?\[DONE\]"
    rb"|^event: ?(?:message_stop|response\.(?:completed|failed|incomplete)|error)$"
    rb'|"type"\s*:\s*"(?:message_stop|response\.(?:completed|failed|incomplete))"'
    rb'|"(?:done|stop)"\s*:\s*true|"finish_reason"\s*:\s*"|"error"\s*:\s*[{"]'
    rb'|"choices"\s*:\s*\[\s*\][^\n]{0,2000}"usage"\s*:\s*\{',
    re.MULTILINE,
)
"""What marks the last event of a stream in the APIs of OpenAI, Anthropic, Ollama and llama.cpp."""


KEPT = 16 * 1024
"""Bytes kept of the beginning and of the end of an event: one of them shows whether it is the last."""


class EndDetector:
    """Detects the end of a stream by its last event, and that of JSON by its syntax.

    Args:
        separator: Separates the events of a stream; empty for JSON.
    """

    __slots__ = ("_kept", "_overflowed", "_separator")

    def __init__(self, separator: bytes) -> None:
        self._separator = separator
        self._kept = bytearray()  # the JSON, or the last event
        self._overflowed = False  # whether that was too long to keep

    def feed(self, data: bytes) -> None:
        """Take a piece of the body."""
        kept, separator = self._kept, self._separator
        if separator:
            kept += data.replace(b"\r", b"")
            before = kept.rfind(separator, 0, len(kept.rstrip()))
            if before >= 0:
                del kept[: before + len(separator)]
            if len(kept) > 2 * KEPT:
                kept[KEPT:-KEPT] = b" "
        elif not self._overflowed:
            kept += data
            if len(kept) > MAX_COLLECTED:
                kept.clear()
                self._overflowed = True

    @property
    def is_complete(self) -> bool:
        """Whether the body is complete."""
        if self._overflowed:
            return False
        if self._separator:
            return self._kept.endswith((b"\n", sse.DONE)) and _FINAL.search(self._kept) is not None
        try:
            msgspec.json.decode(self._kept, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


def end_detector(headers: list[Header]) -> EndDetector | None:
    """Return a detector for the end of a body; None for a media type whose end cannot be detected.

    Args:
        headers: Of the response.

    >>> end_detector([(b"Content-Type", b"text/html")])
    >>> detector = end_detector([(b"Content-Type", b"application/json; charset=utf-8")])
    >>> detector.feed(b'{"a": '), detector.is_complete, detector.feed(b"1}"), detector.is_complete
    (None, False, None, True)
    """
    named = {name.lower(): value.strip().lower() for name, value in headers}
    media_type = named.get(b"content-type", b"").partition(b";")[0].strip()
    if named.get(b"content-encoding", b"identity") != b"identity":
        return None
    if separator := _SEPARATORS.get(media_type):
        return EndDetector(separator)
    return EndDetector(b"") if media_type == b"application/json" or media_type.endswith(b"+json") else None
