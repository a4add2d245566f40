"""Output that comes in any portions becomes lines, in bounded memory."""

import re

from ai_proxy.core.logring import MAX_LINE

CHUNK = 16 * 1024
"""Bytes taken in one turn of the event loop."""

REST = 0.01
"""Seconds without reading after a full chunk: a flood is read at 1.6 MB/s, then its writer has to wait."""

MAX_LINES = 500
"""Lines kept of one chunk; a flood of short ones loses those before."""

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class LineSplitter:
    """Makes lines of bytes that come in any portions; a progress bar's carriage returns end lines, too."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        r"""Return the lines that are complete now.

        >>> splitter = LineSplitter()
        >>> splitter.feed(b"one\r\ntw"), splitter.feed(b"o\n10%\r"), splitter.feed(b"20%\n")
        (['one'], ['two'], ['10%', '20%'])
        """
        *lines, rest = _LINE_END.split(self._rest + data)
        self._rest = rest if len(rest) <= 4 * MAX_LINE else rest[: 4 * MAX_LINE]
        if len(lines) > MAX_LINES:
            note = f"... {len(lines) - MAX_LINES} lines left out ..."
            return [note, *map(_text, lines[-MAX_LINES:])]
        return [_text(line) for line in lines]

    def flush(self) -> list[str]:
        """Return the last line, if it had no end."""
        rest, self._rest = self._rest.rstrip(b"\r"), b""
        return [_text(rest)] if rest else []


def _text(line: bytes) -> str:
    """Decode a line, and no more of it than is kept: a character takes up to four bytes."""
    return line[: 4 * MAX_LINE].decode(errors="replace")[:MAX_LINE]
