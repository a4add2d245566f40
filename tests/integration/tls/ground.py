"""A server that streams over TLS, and clients that look at its certificate."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cryptography import x509

PATIENCE = 60.0
"""Seconds after which a test is told that nothing comes any more."""


@dataclass(slots=True)
class Connection:
    """A client's."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def echo(self, words: bytes) -> bytes:
        """Say something, and return what comes back."""
        self.writer.write(words)
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(len(words))

    @property
    def tls(self) -> ssl.SSLObject:
        """What the client knows of the connection."""
        tls = self.writer.get_extra_info("ssl_object")
        assert isinstance(tls, ssl.SSLObject)
        return tls

    @property
    def serial(self) -> str:
        """The number of the server's certificate."""
        shown = self.tls.getpeercert(binary_form=True)
        assert shown is not None
        return f"{x509.load_der_x509_certificate(shown).serial_number:x}"

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        await self.writer.wait_closed()


@dataclass(slots=True)
class TlsServer:
    """A server to connect to."""

    port: int
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, trusting: ssl.SSLContext, name: str = "localhost") -> Connection:
        """Connect, trusting whom the context trusts."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=trusting, server_hostname=name
            )
        self._writers.append(writer)
        return Connection(reader, writer)

    def abort(self) -> None:
        """Cut off the clients that have not left, as those of a test that failed."""
        for writer in self._writers:
            writer.transport.abort()

    async def serial(self, trusting: ssl.SSLContext, name: str = "localhost") -> str:
        """Return the number of the certificate that new connections are shown."""
        connection = await self.connect(trusting, name)
        serial = connection.serial
        await connection.close()
        return serial


@asynccontextmanager
async def echo_server(context: ssl.SSLContext) -> AsyncIterator[TlsServer]:
    """Serve over TLS."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while words := await reader.read(65_536):
            writer.write(words)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    clients = TlsServer(server.sockets[0].getsockname()[1])
    try:
        yield clients
    finally:
        server.close()
        clients.abort()
