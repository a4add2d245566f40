"""Heads that come again: a kept connection repeats the same one, but for the digits of its Content-Length.

A head is parsed and checked once. While the same bytes come again on the same connection, what was decided
about them still holds, as long as the generation of keys, policy and routes is the same.
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

    __slots__ = ("_after", "_before", "_limit", "_size", "_tail", "generation", "plan")

    def __init__(self, head: bytes, plan: Plan, generation: object, limit: int) -> None:
        self._before, self._after = split_at_length(head)
        self._size, self._tail = len(self._before), len(self._after)
        self._limit = limit
        self.plan = plan
        self.generation = generation

    def match(self, data: bytes) -> bytes | None:
        """Return the body when `data` is the same head and a whole body within the limit; else None."""
        if not self._tail:
            return b"" if data == self._before else None
        if not data.startswith(self._before):
            return None
        start = self._size
        end = data.find(b"\r", start, start + MAX_DIGITS + 1)
        if end < 0 or not data.startswith(self._after, end):
            return None
        body = data[end + self._tail :]
        length = len(body)
        return body if data[start:end] == b"%d" % length and length <= self._limit else None


class CachedResponseHead:
    """A response head with a Content-Length, and the head that was sent to the client for it.

    Attributes:
        status: HTTP status.
        head_before: What the client gets before the digits of the length.
        head_after: And after them.
    """

    __slots__ = ("_after", "_before", "_size", "_tail", "head_after", "head_before", "status")

    def __init__(self, head: bytes, status: int, passed_on: bytes) -> None:
        self._before, self._after = split_at_length(head)
        self._size, self._tail = len(self._before), len(self._after)
        self.head_before, self.head_after = split_at_length(passed_on)
        self.status = status

    def match(self, data: bytes) -> tuple[bytes, bytes, int] | None:
        """Take `data` apart when it begins with the same head; else return None.

        Returns:
            The digits of the length, what has come of the body, and how many bytes of it have not.
        """
        if not data.startswith(self._before):
            return None
        start = self._size
        end = data.find(b"\r", start, start + MAX_DIGITS + 1)
        if end < 0 or not data.startswith(self._after, end):
            return None
        digits, body = data[start:end], data[end + self._tail :]
        if digits == b"%d" % len(body):
            return digits, body, 0
        missing = int(digits) - len(body) if digits.isdigit() else -1
        return (digits, body, missing) if missing > 0 else None
