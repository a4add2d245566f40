"""Finds out which model an upload is for, without holding the upload (RFC 7578)."""

import re

from ai_proxy.core.errors import InvalidRequestError

MAX_AHEAD = 64 * 1024
"""Bytes read in search of the `model` field, which has to come before the files."""

_BOUNDARY = re.compile(rb'boundary="?([^";,]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(rb'\bname="?([^";\r\n]*)"?', re.IGNORECASE)
_FILE = re.compile(rb"\bfilename\*?=", re.IGNORECASE)


def boundary_of(content_type: bytes) -> bytes | None:
    """Return the boundary between the parts; None when this is no multipart body.

    >>> boundary_of(b'multipart/form-data; boundary="abc"'), boundary_of(b"application/json")
    (b'abc', None)
    """
    if not content_type.lower().startswith(b"multipart/"):
        return None
    match = _BOUNDARY.search(content_type)
    return match[1].strip() if match else None


class ModelField:
    """Takes a body as it comes until its `model` field has come whole.

    Attributes:
        held: What has come so far.
        model: The field's value; None until it has come.
    """

    def __init__(self, boundary: bytes) -> None:
        self.held = bytearray()
        self.model: str | None = None
        self._separator = b"--" + boundary
        self._span = (0, 0)
        self._part = 0  # where the first part begins that has not come whole

    def feed(self, data: bytes) -> bool:
        """Take a piece; return whether the model is known.

        Raises:
            InvalidRequestError: A file comes first, there is no such field, or it is not text.
        """
        self.held += data
        return self.model is not None or self._search()

    def _search(self) -> bool:
        start = self.held.find(self._separator, self._part)
        while start >= 0:
            self._part = start
            head_end = self.held.find(b"\r\n\r\n", start)
            end = self.held.find(b"\r\n" + self._separator, head_end + 2) if head_end >= 0 else -1
            if head_end >= 0 and self._take(bytes(self.held[start:head_end]), head_end + 4, end):
                return True
            if self.held.startswith(b"--", start + len(self._separator)):
                raise _missing("there is none")
            start = end + 2 if end >= 0 else -1
        if len(self.held) > MAX_AHEAD:
            raise _missing(f"it is not in the first {MAX_AHEAD} bytes")
        return False

    def _take(self, head: bytes, start: int, end: int) -> bool:
        """Look at a part; return whether it is the model's, and has come whole."""
        name = _NAME.search(head)
        if name is None or name[1] != b"model":
            if _FILE.search(head):
                raise _missing("a file comes first")
            return False
        if end < 0:
            return False
        try:
            self.model = self.held[start:end].decode()
        except UnicodeDecodeError:
            raise InvalidRequestError("model must be text in UTF-8", "model") from None
        self._span = (start, end)
        return True

    def renamed(self, target: str) -> bytes:
        """Return what has come, with another model in it."""
        start, end = self._span
        return bytes(self.held[:start]) + target.encode() + bytes(self.held[end:])

    def end(self) -> None:
        """Say that nothing more comes.

        Raises:
            InvalidRequestError: The model is still not known.
        """
        if self.model is None:
            raise _missing("there is none")


def _missing(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"a multipart request must have a field `model` before its files; {why}. GET /v1/models lists models",
        "model",
    )
