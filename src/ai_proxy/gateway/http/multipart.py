"""Finds the model that a multipart form names, without holding its files in memory (RFC 7578).

A form that two parsers could read differently is refused: the engine must find the model that we found.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from ai_proxy.core.errors import InvalidRequestError

MAX_AHEAD = 64 * 1024
"""Most bytes before the end of the `model` field, which must come before the files."""
MAX_PART_HEAD = 16 * 1024
"""Most bytes of the headers of one part."""

_ONE = rb';[ \t]*([^\s;="]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^\s;"]*)'
_PARAMETER = re.compile(_ONE)
_FIELD = re.compile(rb"[ \t]*form-data[ \t]*(?:%b[ \t]*)*;?[ \t]*" % _ONE, re.IGNORECASE)
"""A Content-Disposition in which every parser finds the same parameters."""
_HEADERS = re.compile(rb"(?:(?:\A|\r\n)[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r]*)*")
"""Lines that every parser takes for headers."""
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_FOLD = re.compile(rb"\r\n[ \t]+")
_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
"""What some parsers take for the end of a line or of a string, and others do not."""


def parameters(value: bytes) -> dict[bytes, bytes]:
    """Return the parameters in the value of a header, their names in lower case.

    Raises:
        InvalidRequestError: One is given more than once.

    >>> parameters(b'form-data; name="a;b"; FileName=c')
    {b'name': b'a;b', b'filename': b'c'}
    """
    pairs = [(match[1].lower(), match[2].strip(b'"')) for match in _PARAMETER.finditer(value)]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidRequestError("a header of a multipart request has a parameter more than once")
    return found


def is_multipart(content_type: bytes) -> bool:
    """Return whether a body is a multipart form."""
    return content_type[:10].lower() == b"multipart/"


def boundary_of(content_type: bytes) -> bytes:
    """Return what stands between the parts (RFC 2046 section 5.1.1).

    Raises:
        InvalidRequestError: There is no boundary, or an invalid one.

    >>> boundary_of(b'multipart/form-data; boundary="abc"')
    b'abc'
    """
    boundary = parameters(content_type).get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequestError(
            "the Content-Type of a multipart request must give a boundary of 1 to 70 characters"
        )
    return boundary


def check_line_ends(head: bytes) -> None:
    r"""Check that every parser finds the same lines in a part's headers, or in the beginning of them.

    Raises:
        InvalidRequestError: A CR or LF stands alone, or there is a NUL.

    >>> check_line_ends(b"A: b\r\nC")
    """
    if _STRAY.search(head):
        raise InvalidRequestError("the header lines of a form part must end with CR LF and contain no NUL")


def check_headers(head: bytes) -> None:
    r"""Check that every parser finds the same headers in a part.

    Args:
        head: Complete lines, without the end of the last one.

    Raises:
        InvalidRequestError: Lines are not separated by CR LF, or one has no name or no colon.

    >>> check_headers(b"A: b\r\n c\r\nD: e")
    """
    check_line_ends(head)
    if not _HEADERS.fullmatch(_FOLD.sub(b" ", head)):
        raise InvalidRequestError("every header of a form part must have a name and a colon")


@dataclass(frozen=True, slots=True)
class Part:
    """The headers of one part of a form, as far as they matter.

    Attributes:
        name: The field's name; empty when the part has none.
        is_file: Whether the part is a file.
    """

    name: bytes = b""
    is_file: bool = False

    @classmethod
    def of(cls, head: bytes) -> "Part":
        r"""Read the headers of a part.

        Raises:
            InvalidRequestError: Two parsers could read them differently.

        >>> Part.of(b'X: name="b"\r\nContent-Disposition: form-data; name="a"')
        Part(name=b'a', is_file=False)
        """
        check_headers(head)
        lines = [line.partition(b":") for line in _FOLD.sub(b" ", head).split(b"\r\n")]
        dispositions = [value for name, _, value in lines if name.strip().lower() == b"content-disposition"]
        if not dispositions:
            return cls()
        if len(dispositions) > 1:
            raise InvalidRequestError("a form part must not have more than one Content-Disposition")
        if not _FIELD.fullmatch(dispositions[0]):
            raise InvalidRequestError(
                "the Content-Disposition of a form part must be form-data with a name (RFC 7578)"
            )
        found = parameters(dispositions[0])
        if any(name.startswith(b"name*") for name in found):
            raise InvalidRequestError("a form field must be named by `name`, not by `name*` (RFC 7578)")
        return cls(found.get(b"name", b""), b"filename" in found or b"filename*" in found)

    @property
    def may_be_model(self) -> bool:
        r"""Whether some engine may take the part for the model: not all of them compare names exactly.

        >>> [Part(name).may_be_model for name in (b"model", b"Model", b"mod\\el", b"%6dodel", b"models")]
        [True, True, True, True, False]
        """
        name = unquote_to_bytes(self.name).replace(b"\\", b"")
        return name.strip(b"/ \t").lower() == b"model"


class Parts:
    """Splits a form into its parts as it arrives, and keeps only what it has not parsed yet.

    Args:
        boundary: Separates the parts.
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
            The offset in the form at which a part's content ends, with None; or at which it begins, with
            the part.

        Raises:
            InvalidRequestError: Two parsers could read the form differently.
        """
        self._data += data
        while (found := self._next_part() if self._in_head else self._next_delimiter()) is not None:
            yield found

    def end(self) -> None:
        """End the form.

        Raises:
            InvalidRequestError: The form ends within the headers of a part.
        """
        if self._in_head:
            raise InvalidRequestError("the form ends within the headers of a part")

    def _next_delimiter(self) -> tuple[int, Part | None] | None:
        """Find the end of a part's content, or of the preamble; None when it has not arrived."""
        data, delimiter = self._data, self._delimiter
        while (start := data.find(delimiter)) >= 0:
            end = start + len(delimiter)
            if len(data) < end + 2:
                self._forget(max(0, start - 1))
                return None
            after = bytes(data[end : end + 2])
            if after[:1] in b" \t\r\n" or after == b"--":
                break
            self._forget(end)  # not a delimiter: the line goes on
        else:
            self._forget(len(data) - len(delimiter))
            return None
        if self._ended:
            raise InvalidRequestError("a form must not have another part after its closing boundary")
        if data[start - 1 : start] != b"\r" or after not in (b"\r\n", b"--"):
            raise InvalidRequestError("every boundary of a form must be on a line of its own")
        content_end = max(0, self._at + start - 1)
        self._ended = after == b"--"
        self._in_head = not self._ended
        self._forget(end if self._in_head else end + 2)
        return content_end, None

    def _next_part(self) -> tuple[int, Part | None] | None:
        """Read the headers of a part, with the line end before them; None when they have not arrived."""
        end = self._data.find(b"\r\n\r\n")
        if (len(self._data) if end < 0 else end) > MAX_PART_HEAD:
            raise InvalidRequestError(f"the headers of a form part must not exceed {MAX_PART_HEAD} bytes")
        if end < 0:
            # Other parsers may find the end of the headers in lines that we would go on reading.
            complete, _, begun = self._data[2:].removesuffix(b"\r").rpartition(b"\r\n")
            check_headers(bytes(complete))
            check_line_ends(bytes(begun))
            return None
        part = Part.of(bytes(self._data[2:end]))
        self._in_head = False
        content = self._at + end + 4
        self._forget(end + 2)  # a delimiter may follow at once
        return content, part

    def _forget(self, count: int) -> None:
        """Drop bytes that are not needed any more."""
        if count > 0:
            del self._data[:count]
            self._at += count


class ModelField:
    """Finds the `model` field of a form as it arrives, and checks that no second one follows.

    Attributes:
        held: The form up to the piece that completed the field.
        model: The field's value; None until it is complete.

    Args:
        boundary: Separates the parts.
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
            InvalidRequestError: The field comes after a file, is missing, is given more than once, or is not
                UTF-8; or two parsers could read the form differently.
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
            raise InvalidRequestError("model is given more than once", "model")
        if part.is_file:
            raise _missing("a file comes first")
        if part.name != b"model":
            raise InvalidRequestError("the field must be named `model`, in lower case", "model")
        self._begin = at

    def _take(self, end: int) -> None:
        """Take the content of the field."""
        self._end = max(self._begin, end)
        try:
            self.model = self.held[self._begin : self._end].decode()
        except UnicodeDecodeError:
            raise InvalidRequestError("model must be UTF-8 text", "model") from None

    def renamed(self, target: str) -> bytes:
        """Return what is held, with another model in it."""
        return b"".join((self.held[: self._begin], target.encode(), self.held[self._end :]))

    def end(self) -> None:
        """End the form.

        Raises:
            InvalidRequestError: It has no model, or ends within the headers of a part.
        """
        if self.model is None:
            raise _missing("there is none")
        self._parts.end()


def _missing(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"a multipart request must have a field `model` before its files; {why}. GET /v1/models lists models",
        "model",
    )
