"""Heads that come again: a kept connection says the same one over and over, but for the length of the body.

A head is parsed and checked once. When the same bytes come again on the same connection, with nothing but the
digits of Content-Length changed, what was found out about them still holds.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy.gateway.entries import Entry
    from ai_proxy.gateway.request import Request
    from ai_proxy.gateway.route import Destination

MAX_MISSES = 4
"""Heads in a row that did not come again, after which a connection is no longer expected to repeat itself."""
MAX_DIGITS = 9


def split_at_length(head: bytes) -> tuple[bytes, bytes]:
    r"""Split a checked head before and after the digits of its Content-Length.

    Returns:
        Both parts; without a Content-Length the whole head and nothing.

    >>> split_at_length(b"GET / HTTP/1.1\r\ncontent-length: 12\r\na: b\r\n\r\n")
    (b'GET / HTTP/1.1\r\ncontent-length: ', b'\r\na: b\r\n\r\n')
    >>> split_at_length(b"GET / HTTP/1.1\r\na: b\r\n\r\n")
    (b'GET / HTTP/1.1\r\na: b\r\n\r\n', b'')
    """
    start = head.lower().find(b"\r\ncontent-length:")
    if start < 0:
        return head, b""
    end = head.find(b"\r\n", start + 2)
    value = head[start + 17 : end].lstrip(b" \t")
    digits = value.rstrip(b" \t")
    first = end - len(value)
    return head[:first], head[first + len(digits) :]


class RequestMemo:
    """A request head, and where it leads as long as nothing changes that decides about that."""

    __slots__ = (
        "after",
        "before",
        "destination",
        "entry",
        "limit",
        "path",
        "request",
        "size",
        "stamp",
        "tail",
    )

    def __init__(
        self,
        head: bytes,
        request: "Request",
        destination: "Destination | None",
        entry: "Entry | None",
        path: bytes,
        stamp: object,
        limit: int,
    ) -> None:
        self.before, self.after = split_at_length(head)
        self.size, self.tail = len(self.before), len(self.after)
        self.request = request
        self.destination = destination
        self.entry = entry
        self.path = path
        self.stamp = stamp
        self.limit = limit

    def match(self, data: bytes) -> bytes | None:
        """Return the body when these bytes are the same head and a whole body, and nothing else."""
        if not self.tail:
            return b"" if data == self.before else None
        if not data.startswith(self.before):
            return None
        start = self.size
        end = data.find(b"\r", start, start + MAX_DIGITS + 1)
        if end < 0 or not data.startswith(self.after, end):
            return None
        body = data[end + self.tail :]
        length = len(body)
        return body if data[start:end] == b"%d" % length and length <= self.limit else None


class ResponseMemo:
    """A response head with a Content-Length, and how it is passed on."""

    __slots__ = ("after", "before", "head_after", "head_before", "size", "status", "tail")

    def __init__(self, head: bytes, status: int, passed_on: bytes) -> None:
        self.before, self.after = split_at_length(head)
        self.size, self.tail = len(self.before), len(self.after)
        self.head_before, self.head_after = split_at_length(passed_on)
        self.status = status

    def match(self, data: bytes) -> tuple[bytes, bytes, int] | None:
        """Take these bytes apart when they begin with the same head; else return None.

        Returns:
            The digits of the length, what has come of the body, and how many bytes of it have not.
        """
        if not data.startswith(self.before):
            return None
        start = self.size
        end = data.find(b"\r", start, start + MAX_DIGITS + 1)
        if end < 0 or not data.startswith(self.after, end):
            return None
        digits, body = data[start:end], data[end + self.tail :]
        if digits == b"%d" % len(body):
            return digits, body, 0
        missing = int(digits) - len(body) if digits.isdigit() else -1
        return (digits, body, missing) if missing > 0 else None
