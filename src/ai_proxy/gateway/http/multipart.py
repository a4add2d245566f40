"""Finds out which model an upload is for, without holding the upload (RFC 7578).

Where a form could be read in two ways, it is refused: what we read has to be what the engine reads.
"""

import re

from ai_proxy.core.errors import InvalidRequestError

MAX_AHEAD = 64 * 1024
"""Bytes read in search of the `model` field, which has to come before the files."""

_PARAMETER = re.compile(rb';[ \t]*([^\s;="]+)=("(?:[^"\\]|\\.)*"|[^\s;"]*)')
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_FOLD = re.compile(rb"\r\n[ \t]+")


def parameters(value: bytes) -> dict[bytes, bytes]:
    """Return the parameters in the value of a header, their names in lower case.

    Raises:
        InvalidRequestError: One is there twice.

    >>> parameters(b'form-data; name="a;b"; FileName=c')
    {b'name': b'a;b', b'filename': b'c'}
    """
    pairs = [(match[1].lower(), match[2].strip(b'"')) for match in _PARAMETER.finditer(value)]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidRequestError("a header of a multipart request says the same thing twice")
    return found


def is_multipart(content_type: bytes) -> bool:
    """Tell whether a body is a form of several parts."""
    return content_type[:10].lower() == b"multipart/"


def boundary_of(content_type: bytes) -> bytes:
    """Return what stands between the parts (RFC 2046 section 5.1.1).

    Raises:
        InvalidRequestError: That is not said, or not well.

    >>> boundary_of(b'multipart/form-data; boundary="abc"')
    b'abc'
    """
    boundary = parameters(content_type).get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequestError(
            "the Content-Type of a multipart request must say a boundary of 1 to 70 characters"
        )
    return boundary


def field_name(head: bytes) -> bytes:
    r"""Return the name of the field that a part is; empty where it is none.

    Args:
        head: The headers of the part.

    Raises:
        InvalidRequestError: It is a file.

    >>> field_name(b'X: name="b"\r\nContent-Disposition: form-data; name="a"')
    b'a'
    """
    for line in _FOLD.sub(b" ", head).split(b"\r\n"):
        header, _, value = line.partition(b":")
        if header.strip().lower() == b"content-disposition":
            found = parameters(value)
            if b"filename" in found or b"filename*" in found:
                raise _missing("a file comes first")
            return found.get(b"name", b"")
    return b""


class ModelField:
    """Takes a body as it comes until its `model` field has come whole.

    Attributes:
        held: What has come so far.
        model: The field's value; None until it has come.
    """

    def __init__(self, boundary: bytes) -> None:
        self.held = bytearray()
        self.model: str | None = None
        self._delimiter = re.compile(rb"(?:\A|\r\n)--%b(--|\r\n|[ \t])" % re.escape(boundary))
        self._longest = len(boundary) + 6
        self._in_head = False
        self._name = b""
        self._begin = 0  # of the headers or the content at hand
        self._searched = 0
        self._end = 0

    def feed(self, data: bytes) -> bool:
        """Take a piece; return whether the model is known.

        Raises:
            InvalidRequestError: A file comes first, there is no such field, or it is not text.
        """
        self.held += data
        while self.model is None and (self._read_head() if self._in_head else self._read_content()):
            pass
        if self.model is None and len(self.held) > MAX_AHEAD:
            raise _missing(f"it is not in the first {MAX_AHEAD} bytes")
        return self.model is not None

    def _read_head(self) -> bool:
        """Read the headers of a part; False when they have not come whole."""
        end = self.held.find(b"\r\n\r\n", self._searched)
        if end < 0:
            self._searched = max(self._searched, len(self.held) - 3)
            return False
        self._name = field_name(bytes(self.held[self._begin : end]))
        self._begin = end + 4
        self._searched = end + 2  # a delimiter may follow at once
        self._in_head = False
        return True

    def _read_content(self) -> bool:
        """Read the content of a part, or what stands before the first; False when it has not come whole."""
        found = self._delimiter.search(self.held, self._searched)
        if found is None:
            self._searched = max(self._searched, len(self.held) - self._longest)
            return False
        if self._name == b"model":
            self._take(found.start())
            return True
        if found[1] == b"--":
            raise _missing("there is none")
        if found[1] != b"\r\n":
            raise InvalidRequestError("nothing may follow a boundary in its line")
        self._begin = found.end()
        self._searched = found.end() - 2  # there may be no headers
        self._in_head = True
        return True

    def _take(self, end: int) -> None:
        """Take the content of the field."""
        self._end = max(self._begin, end)
        try:
            self.model = self.held[self._begin : self._end].decode()
        except UnicodeDecodeError:
            raise InvalidRequestError("model must be text in UTF-8", "model") from None

    def renamed(self, target: str) -> bytes:
        """Return what has come, with another model in it."""
        return b"".join((self.held[: self._begin], target.encode(), self.held[self._end :]))

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
