"""The end of a body that only the end of its connection tells: an engine may have died there as well."""

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
"""What stands between the events of a stream."""

_FINAL = re.compile(
    rb"^data: ?\[DONE\]"
    rb"|^event: ?(?:message_stop|response\.(?:completed|failed|incomplete)|error)$"
    rb'|"type"\s*:\s*"(?:message_stop|response\.(?:completed|failed|incomplete))"'
    rb'|"(?:done|stop)"\s*:\s*true|"finish_reason"\s*:\s*"|"error"\s*:\s*[{"]'
    rb'|"choices"\s*:\s*\[\s*\][^\n]{0,2000}"usage"\s*:\s*\{',
    re.MULTILINE,
)
"""What the last event of a stream says: of OpenAI's, Anthropic's, Ollama's and llama.cpp's own."""


KEPT = 16 * 1024
"""Bytes kept of the beginning of an event, and of its end: one of them says that it is the last one."""


class Ending:
    """Recognises the end of a stream by its last event, and that of JSON by its being whole."""

    __slots__ = ("_kept", "_lost", "_separator")

    def __init__(self, separator: bytes) -> None:
        self._separator = separator  # between events; empty for JSON
        self._kept = bytearray()
        self._lost = False

    def see(self, data: bytes) -> None:
        """Take note of a piece of the body."""
        kept, separator = self._kept, self._separator
        if separator:
            kept += data.replace(b"\r", b"")
            before = kept.rfind(separator, 0, len(kept.rstrip()))
            if before >= 0:
                del kept[: before + len(separator)]
            if len(kept) > 2 * KEPT:
                kept[KEPT:-KEPT] = b" "
        elif not self._lost:
            kept += data
            if len(kept) > MAX_COLLECTED:
                kept.clear()
                self._lost = True

    @property
    def is_reached(self) -> bool:
        """Whether what has come is whole."""
        if self._lost:
            return False
        if self._separator:
            return self._kept.endswith((b"\n", sse.DONE)) and _FINAL.search(self._kept) is not None
        try:
            msgspec.json.decode(self._kept, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


def ending_of(headers: list[Header]) -> Ending | None:
    """Return what recognises the end of a body; None where nothing can.

    >>> ending_of([(b"Content-Type", b"text/html")])
    >>> ending = ending_of([(b"Content-Type", b"application/json; charset=utf-8")])
    >>> ending.see(b'{"a": '), ending.is_reached, ending.see(b"1}"), ending.is_reached
    (None, False, None, True)
    """
    named = {name.lower(): value.strip().lower() for name, value in headers}
    media_type = named.get(b"content-type", b"").partition(b";")[0].strip()
    if named.get(b"content-encoding", b"identity") != b"identity":
        return None
    if separator := _SEPARATORS.get(media_type):
        return Ending(separator)
    return Ending(b"") if media_type == b"application/json" or media_type.endswith(b"+json") else None
