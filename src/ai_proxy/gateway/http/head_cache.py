"""Heads that come again: a kept connection repeats the same one, but for the digits of its Content-Length.

A head is parsed and checked once. While the same bytes come again on the same connection, what was decided
about them still holds, as long as the generation of keys, policy and routes is the same. A body of the same
length as the one before it has the very same head, which one comparison finds.
"""

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


class CachedRequestHead[Plan]:
    """A request head, and what was decided about it.

    Attributes:
        plan: The decision.
        generation: What it was decided by; another one makes it void.
    """

    __slots__ = ("_after", "_before", "_last", "_length", "_limit", "_size", "_tail", "generation", "plan")

    def __init__(self, head: bytes, plan: Plan, generation: object, limit: int) -> None:
        self._before, self._after = split_at_length(head)
        self._size, self._tail = len(self._before), len(self._after)
        self._limit = limit
        self._last, self._length = head, -1  # of the request before, and all its bytes
        self.plan = plan
        self.generation = generation

    def match(self, data: bytes) -> bytes | None:
        """Return the body when `data` is the same head and a whole body within the limit; else None."""
        if len(data) == self._length and data.startswith(self._last):
            return data[len(self._last) :]
        if not self._tail:
            return b"" if data == self._before else None
        if not data.startswith(self._before):
            return None
        start = self._size
        end = data.find(b"\r", start, start + MAX_DIGITS + 1)
        if end < 0 or not data.startswith(self._after, end):
            return None
        body = data[end + self._tail :]
        if data[start:end] != b"%d" % len(body) or len(body) > self._limit:
            return None
        self._last, self._length = data[: end + self._tail], len(data)
        return body


class CachedResponseHead:
    """A response head with a Content-Length, and the head that was sent to the client for it.

    Attributes:
        status: HTTP status.
    """

    __slots__ = (
        *("_after", "_before", "_last", "_length", "_passed_after", "_passed_before", "_passed_on"),
        *("_size", "_tail", "status"),
    )

    def __init__(self, head: bytes, status: int, passed_on: bytes) -> None:
        self._before, self._after = split_at_length(head)
        self._size, self._tail = len(self._before), len(self._after)
        self._passed_before, self._passed_after = split_at_length(passed_on)
        self._last, self._length = head, -1  # of the whole response before, and all its bytes
        self._passed_on = passed_on
        self.status = status

    def match(self, data: bytes) -> tuple[bytes, bytes, int] | None:
        """Take `data` apart when it begins with the same head; else return None.

        Returns:
            What to pass on of the head, what has come of the body, and how many bytes of it have not.
        """
        if len(data) == self._length and data.startswith(self._last):
            return self._passed_on, data[len(self._last) :], 0
        if not data.startswith(self._before):
            return None
        start = self._size
        end = data.find(b"\r", start, start + MAX_DIGITS + 1)
        if end < 0 or not data.startswith(self._after, end):
            return None
        digits, body = data[start:end], data[end + self._tail :]
        passed_on = self._passed_before + digits + self._passed_after
        if digits == b"%d" % len(body):
            self._last, self._length, self._passed_on = data[: end + self._tail], len(data), passed_on
            return passed_on, body, 0
        missing = int(digits) - len(body) if digits.isdigit() else -1
        return (passed_on, body, missing) if missing > 0 else None
