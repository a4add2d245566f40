"""How the body of a request is taken as it arrives: held until it is whole, or passed on piece by piece."""

from typing import Protocol

from ai_proxy.core.errors import BodyTooLargeError
from ai_proxy.core.settings import MB

IN_CONFIGURATION = "server.limits.max_json_body_mb in the configuration"
IN_POLICY = "max_request_mb in the policy"


class Body(Protocol):
    """Takes the pieces of one request's body.

    Attributes:
        is_known: Whether enough of it is here to choose a backend.
    """

    is_known: bool

    def add(self, data: bytes) -> bytes:
        """Take a piece.

        Returns:
            What may be sent on now, framed; empty while it is held.

        Raises:
            ProxyError: The body cannot be taken.
        """

    def end(self) -> bytes | bytearray:
        """Take the end of the body; return what may be sent on now.

        Raises:
            ProxyError: The body lacks something.
        """


class HeldBody:
    """A body that is forwarded whole, since what it says decides where it goes.

    Args:
        limit: Most bytes of it.
    """

    __slots__ = ("_data", "_limit", "is_known")

    def __init__(self, limit: int) -> None:
        self.is_known = False
        self._data: bytes | bytearray = b""
        self._limit = limit

    def add(self, data: bytes) -> bytes:
        """Keep a piece.

        Raises:
            BodyTooLargeError: The body exceeds the limit.
        """
        if len(self._data) + len(data) > self._limit:
            self._data = b""
            raise too_large(self._limit, IN_CONFIGURATION)
        if not self._data:
            self._data = data
            return b""
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data)
        self._data += data
        return b""

    def end(self) -> bytes | bytearray:
        """Return the whole body."""
        self.is_known = True
        return self._data


class StreamedBody:
    """A body that is passed on as it arrives.

    Args:
        chunked: Whether it is framed in chunks, on both sides.
    """

    __slots__ = ("_chunked", "is_known")

    def __init__(self, *, chunked: bool) -> None:
        self.is_known = True
        self._chunked = chunked

    def add(self, data: bytes) -> bytes:
        """Frame a piece."""
        return frame_chunk(data) if self._chunked else data

    def end(self) -> bytes:
        """Return the last chunk, where there are chunks."""
        return LAST_CHUNK if self._chunked else b""


LAST_CHUNK = b"0\r\n\r\n"


def frame_chunk(data: bytes) -> bytes:
    r"""Frame bytes as a chunk (RFC 9112 section 7.1).

    >>> frame_chunk(b"hello")
    b'5\r\nhello\r\n'
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


def too_large(limit: int, where: str) -> BodyTooLargeError:
    """Return the error for a body over a limit.

    Args:
        limit: In bytes.
        where: The setting that raises it; empty where none does.
    """
    size = f"{limit // MB} MB" if limit % MB == 0 else f"{limit} bytes"
    remedy = f", or raise {where}" if where else ""
    return BodyTooLargeError(f"the body must not exceed {size}; send less{remedy}")
