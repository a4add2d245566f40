"""HTTP/1.1 by hand, for tests that must see and say every byte: strict reading, no writing but your own."""

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import cast

PATIENCE = 60.0
"""Seconds after which a test is told that nothing comes any more."""

type Headers = tuple[tuple[bytes, bytes], ...]


class TruncatedError(Exception):
    """A message ended before its framing said so.

    Attributes:
        message: What came of it.
    """

    def __init__(self, message: "Message") -> None:
        super().__init__(f"{message.first_line!r} broke off after {len(message.body)} bytes of its body")
        self.message = message


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a response; header names in lower case, the body without chunk framing."""

    first_line: bytes
    headers: Headers
    body: bytes = b""

    @property
    def status(self) -> int:
        """A response's status."""
        return int(self.first_line.split(b" ")[1])

    @property
    def method(self) -> bytes:
        """A request's method."""
        return self.first_line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        """A request's target."""
        return self.first_line.split(b" ")[1]

    @property
    def error_code(self) -> bytes | None:
        """The proxy's error code; None for a response that a backend made."""
        return self.header(b"x-ai-proxy-error")

    def header(self, name: bytes) -> bytes | None:
        """Return a header that must not be there twice."""
        values = self.all(name)
        assert len(values) < 2, f"{name!r} is there {len(values)} times"
        return values[0] if values else None

    def all(self, name: bytes) -> list[bytes]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key == name]


def build_request(
    target: bytes = b"/service/svc/x", *headers: bytes, method: bytes = b"", body: bytes = b""
) -> bytes:
    r"""Return a request; a POST when it has a body, with its length.

    >>> build_request(b"/x", b"A: b", body=b"hi")
    b'POST /x HTTP/1.1\r\nHost: test\r\nA: b\r\nContent-Length: 2\r\n\r\nhi'
    """
    method = method or (b"POST" if body else b"GET")
    length = (b"Content-Length: %d" % len(body),) if body else ()
    return b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), b"Host: test", *headers, *length, b"", body))


async def read_head(reader: asyncio.StreamReader) -> Message | None:
    """Read a head; None when the connection has ended before it began."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise TruncatedError(Message(error.partial, ())) from None
    first_line, *lines = head[:-4].split(b"\r\n")
    pairs = [line.partition(b": ") for line in lines]
    assert all(separator for _, separator, _ in pairs), f"a header line without ': ' in {head!r}"
    return Message(first_line, tuple((name.lower(), value) for name, _, value in pairs))


async def read_request(reader: asyncio.StreamReader) -> Message | None:
    """Read a request with its body; None when there is none."""
    head = await read_head(reader)
    return None if head is None else await read_body(reader, head, until_close=False)


async def read_response(reader: asyncio.StreamReader, method: bytes = b"GET") -> Message:
    """Read the response to a request of that method.

    Raises:
        TruncatedError: It broke off.
        EOFError: None came.
    """
    head = await read_head(reader)
    if head is None:
        raise EOFError("the connection ended where a response should have been")
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
        return head
    return await read_body(reader, head, until_close=True)


async def read_body(reader: asyncio.StreamReader, head: Message, *, until_close: bool) -> Message:
    """Read the body that belongs to a head (RFC 9112 section 6.3)."""
    length, coding = head.header(b"content-length"), head.header(b"transfer-encoding")
    assert length is None or coding is None, f"both a length and chunks: {head}"
    body = bytearray()
    try:
        if coding is not None:
            assert coding == b"chunked"
            await _read_chunks(reader, body)
        elif length is not None:
            body += await reader.readexactly(int(length))
        elif until_close:
            body += await reader.read()
    except asyncio.IncompleteReadError as error:
        body += error.partial
        raise TruncatedError(Message(head.first_line, head.headers, bytes(body))) from None
    return Message(head.first_line, head.headers, bytes(body))


async def _read_chunks(reader: asyncio.StreamReader, body: bytearray) -> None:
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass


class RawConnection:
    """One side of a TCP connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def transport(self) -> asyncio.Transport:
        """What is under the streams, for tests of back-pressure."""
        return cast("asyncio.Transport", self.writer.transport)

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, end: bytes) -> bytes:
        """Return what comes, up to and with these bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(end)

    async def until_closed(self) -> bytes:
        """Return everything up to the end of the connection, orderly or not."""
        data = bytearray()
        try:
            async with asyncio.timeout(PATIENCE):
                while piece := await self.reader.read(65536):
                    data += piece
        except ConnectionError:
            pass
        return bytes(data)

    async def until_eof(self) -> bytes:
        """Return everything up to the orderly end of the connection.

        Raises:
            ConnectionResetError: The end was not orderly.
        """
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        on, no_time = 1, 0
        linger = struct.pack("ii", on, no_time)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def close(self) -> None:
        """End the connection in order."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return  # the other side was quicker


class RawClient(RawConnection):
    """A client that sends what it is told to."""

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int = 0) -> "RawClient":
        """Connect to a port of this machine.

        Args:
            port: The port.
            receive_buffer: Size of the kernel's buffer for what is not read; 0 for the usual.
        """
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(0)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return cls(*await asyncio.open_connection(sock=sock))

    async def response(self, method: bytes = b"GET") -> Message:
        """Read the next response."""
        async with asyncio.timeout(PATIENCE):
            return await read_response(self.reader, method)

    async def ask(self, request: bytes) -> Message:
        """Send a request and read its response."""
        await self.send(request)
        return await self.response(request.split(b" ")[0])
