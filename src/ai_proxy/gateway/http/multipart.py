"""Finds out which model an upload is for, without holding the upload (RFC 7578).

Where a form could be read in two ways, it is refused: what we read has to be what the engine reads.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from ai_proxy.core.errors import InvalidRequestError

MAX_AHEAD = 64 * 1024
"""Bytes read in search of the `model` field, which has to come before the files."""
MAX_PART_HEAD = 16 * 1024
"""Bytes of the headers of one part."""

_ONE = rb';[ \t]*([^\s;="]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^\s;"]*)'
_PARAMETER = re.compile(_ONE)
_FIELD = re.compile(rb"[ \t]*form-data[ \t]*(?:%b[ \t]*)*;?[ \t]*" % _ONE, re.IGNORECASE)
"""A Content-Disposition all of whose parameters are found, whoever looks for them."""
_HEADERS = re.compile(rb"(?:(?:\A|\r\n)[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r]*)*")
"""Lines that are headers to everybody."""
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_FOLD = re.compile(rb"\r\n[ \t]+")
_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
"""What some take for the end of a line, or of a text, and others do not."""


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


def check_lines(head: bytes, *, begun: bool = False) -> None:
    r"""See that everybody takes the lines of a part's headers for headers, and for the same ones.

    Args:
        head: The lines, without the end of the last one.
        begun: Whether it is the beginning of a line.

    Raises:
        InvalidRequestError: One has no name or no colon, or contains what some take for its end.

    >>> check_lines(b"A: b\r\n c\r\nD: e")
    >>> check_lines(b"A", begun=True)
    """
    if _STRAY.search(head):
        raise InvalidRequestError("the headers of a form's part must end their lines with CR LF")
    if not begun and not _HEADERS.fullmatch(_FOLD.sub(b" ", head)):
        raise InvalidRequestError("every header of a form's part must have a name and a colon")


@dataclass(frozen=True, slots=True)
class Part:
    """What the headers of one part of a form say.

    Attributes:
        name: Of the field; empty where there is none.
        is_file: Whether it is a file.
    """

    name: bytes = b""
    is_file: bool = False

    @classmethod
    def of(cls, head: bytes) -> "Part":
        r"""Read the headers of a part.

        Raises:
            InvalidRequestError: They could be read in two ways.

        >>> Part.of(b'X: name="b"\r\nContent-Disposition: form-data; name="a"')
        Part(name=b'a', is_file=False)
        """
        check_lines(head)
        lines = [line.partition(b":") for line in _FOLD.sub(b" ", head).split(b"\r\n")]
        told = [value for name, _, value in lines if name.strip().lower() == b"content-disposition"]
        if not told:
            return cls()
        if len(told) > 1:
            raise InvalidRequestError("a part of a form must have one Content-Disposition")
        if not _FIELD.fullmatch(told[0]):
            raise InvalidRequestError("a part's Content-Disposition must be form-data with a name (RFC 7578)")
        found = parameters(told[0])
        if any(name.startswith(b"name*") for name in found):
            raise InvalidRequestError("the name of a field must be said by `name` alone (RFC 7578)")
        return cls(found.get(b"name", b""), b"filename" in found or b"filename*" in found)

    @property
    def may_be_model(self) -> bool:
        r"""Whether some engine may take it for the model: not all read a name to the letter.

        >>> [Part(name).may_be_model for name in (b"model", b"Model", b"mod\\el", b"%6dodel", b"models")]
        [True, True, True, True, False]
        """
        name = unquote_to_bytes(self.name).replace(b"\\", b"")
        return name.strip(b"/ \t").lower() == b"model"


class Parts:
    """Tells the parts of a form apart as it comes, and keeps nothing that it has looked at.

    Args:
        boundary: What stands between the parts.
    """

    __slots__ = ("_at", "_data", "_delimiter", "_ended", "_in_head")

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\n--" + boundary
        self._data = bytearray(b"\r\n")  # since the first delimiter may stand at the very beginning
        self._at = -2  # where that is in the form
        self._in_head = False
        self._ended = False

    def feed(self, data: bytes) -> Iterator[tuple[int, Part | None]]:
        """Take a piece.

        Yields:
            Where the content of a part ends, with None; and where that of the next begins, with its headers.

        Raises:
            InvalidRequestError: The form could be read in two ways.
        """
        self._data += data
        while (found := self._next_part() if self._in_head else self._next_delimiter()) is not None:
            yield found

    def end(self) -> None:
        """Say that nothing more comes.

        Raises:
            InvalidRequestError: The form ends among the headers of a part.
        """
        if self._in_head:
            raise InvalidRequestError("a form must not end among the headers of a part")

    def _next_delimiter(self) -> tuple[int, Part | None] | None:
        """Find the end of a content, or of what stands before the first; None when it has not come."""
        data, delimiter = self._data, self._delimiter
        while (start := data.find(delimiter)) >= 0:
            end = start + len(delimiter)
            if len(data) < end + 2:
                self._forget(max(0, start - 1))
                return None
            after = bytes(data[end : end + 2])
            if after[:1] in b" \t\r\n" or after == b"--":
                break
            self._forget(end)  # it only begins like a delimiter
        else:
            self._forget(len(data) - len(delimiter))
            return None
        if self._ended:
            raise InvalidRequestError("nothing may follow the end of a form")
        if data[start - 1 : start] != b"\r" or after not in (b"\r\n", b"--"):
            raise InvalidRequestError("a boundary of a form must stand in a line of its own")
        content_end = max(0, self._at + start - 1)
        self._ended = after == b"--"
        self._in_head = not self._ended
        self._forget(end if self._in_head else end + 2)
        return content_end, None

    def _next_part(self) -> tuple[int, Part | None] | None:
        """Read the headers of a part, with the end of line before them; None when they have not come."""
        end = self._data.find(b"\r\n\r\n")
        if (len(self._data) if end < 0 else end) > MAX_PART_HEAD:
            raise InvalidRequestError(f"the headers of a form's part may have {MAX_PART_HEAD} bytes at most")
        if end < 0:
            whole, _, begun = self._data[2:].removesuffix(b"\r").rpartition(b"\r\n")
            check_lines(bytes(whole))  # some find the end of the headers where we would wait for it in vain
            check_lines(bytes(begun), begun=True)
            return None
        part = Part.of(bytes(self._data[2:end]))
        self._in_head = False
        content = self._at + end + 4
        self._forget(end + 2)  # a delimiter may follow at once
        return content, part

    def _forget(self, count: int) -> None:
        """Drop what is not looked at again."""
        if count > 0:
            del self._data[:count]
            self._at += count


class ModelField:
    """Takes a body as it comes: holds it until its `model` field has come whole, then sees that none follows.

    Attributes:
        held: What has come so far.
        model: The field's value; None until it has come.

    Args:
        boundary: What stands between the parts.
    """

    __slots__ = ("_begin", "_end", "_parts", "held", "model")

    def __init__(self, boundary: bytes) -> None:
        self.held = bytearray()
        self.model: str | None = None
        self._parts = Parts(boundary)
        self._begin = -1  # of the field's content
        self._end = -1

    def feed(self, data: bytes) -> bool:
        """Take a piece; return whether the model is known.

        Raises:
            InvalidRequestError: A file comes first, there is no such field or a second one, or it is no text.
        """
        if self.model is None:
            self.held += data
        for at, part in self._parts.feed(data):
            if part is None:
                if self._begin >= 0 and self.model is None:
                    self._take(at)
            elif part.may_be_model:
                self._begin_model(at, part)
            elif part.is_file and self.model is None:
                raise _missing("a file comes first")
        if self.model is None and len(self.held) > MAX_AHEAD:
            raise _missing(f"it is not in the first {MAX_AHEAD} bytes")
        return self.model is not None

    def _begin_model(self, at: int, part: Part) -> None:
        if self._begin >= 0:
            raise InvalidRequestError("model must be said once", "model")
        if part.is_file:
            raise _missing("a file comes first")
        if part.name != b"model":
            raise InvalidRequestError("model must be written so, in small letters", "model")
        self._begin = at

    def _take(self, end: int) -> None:
        """Take the content of the field."""
        self._end = max(self._begin, end)
        try:
            self.model = self.held[self._begin : self._end].decode()
        except UnicodeDecodeError:
            raise InvalidRequestError("model must be text in UTF-8", "model") from None

    def renamed(self, target: str) -> bytes:
        """Return what has come until the model was known, with another model in it."""
        return b"".join((self.held[: self._begin], target.encode(), self.held[self._end :]))

    def end(self) -> None:
        """Say that nothing more comes.

        Raises:
            InvalidRequestError: The model is still not known, or the form ends among the headers of a part.
        """
        if self.model is None:
            raise _missing("there is none")
        self._parts.end()


def _missing(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"a multipart request must have a field `model` before its files; {why}. GET /v1/models lists models",
        "model",
    )
