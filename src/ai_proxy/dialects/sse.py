"""Parser of server-sent events (WHATWG HTML, section 9.2)."""

from collections.abc import Iterator
from typing import NamedTuple

from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.core.http import MAX_COLLECTED

DONE = b"[DONE]"
"""The data of the last event of OpenAI's streams."""

COMMENT = ":"
"""Name of the events that hold comments."""

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event.

    Attributes:
        name: Its type; `message` where the stream names none; `COMMENT` for a comment.
        data: Its lines of data, joined by line feeds; the text of a comment.
    """

    name: str
    data: bytes


class Parser:
    """Finds the events in a stream, however it was cut into pieces.

    It skips the fields that only matter to a browser that reconnects (`id`, `retry`), and an event that the
    end of the stream cuts short.

    Args:
        max_event: Longest event, in bytes.
        comments: Whether to yield comments as well.
    """

    def __init__(self, max_event: int = MAX_COLLECTED, *, comments: bool = False) -> None:
        self._max_event = max_event
        self._comments = comments
        self._line = bytearray()
        self._data: list[bytes] = []
        self._name = ""
        self._held = 0
        self._at_start = True
        self._after_cr = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        r"""Yield the events that the next piece of the stream completes; the caller exhausts the iterator.

        Raises:
            UpstreamInvalidError: An event is longer than the maximum.

        >>> parser = Parser()
        >>> list(parser.feed(b'data: {"a":')), list(parser.feed(b'1}\r\n\r\n'))
        ([], [Event(name='message', data=b'{"a":1}')])
        """
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        if not piece:
            return
        self._after_cr = piece.endswith(b"\r")
        lines = piece.splitlines()
        rest = b"" if piece.endswith((b"\r", b"\n")) else lines.pop()
        for line in lines:
            self._hold(line)
            event = self._end_line()
            if event is not None:
                yield event
        if rest:
            self._hold(rest)

    def _hold(self, part: bytes) -> None:
        self._line += part
        self._held += len(part)
        if self._held > self._max_event:
            raise UpstreamInvalidError(
                f"an event of the engine's stream is longer than {self._max_event} bytes"
            )

    def _end_line(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BOM)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        else:
            self._held -= len(line)
            if not field and self._comments:
                return Event(COMMENT, value)
            if field == b"event":
                self._name = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> Event | None:
        event = Event(self._name or "message", b"\n".join(self._data)) if self._data else None
        self._data.clear()
        self._name = ""
        self._held = 0
        return event
