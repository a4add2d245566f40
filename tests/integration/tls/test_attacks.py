"""The gateway over TLS, and clients that do not play along."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import trustme
from tests.integration.tls.ground import PATIENCE, Connection
from tests.rigs.raw_backend import BackendConnection, by_hand
from tests.rigs.raw_http import RawClient, build_request
from tests.rigs.wire_rig import WireRig, eventually, wire_rig

from ai_proxy.core.settings import Limits
from ai_proxy.gateway.http.tls import SHUTDOWN
from ai_proxy.tls.certificates import PemFiles
from ai_proxy.tls.context import LiveContext

LIMITS = Limits(head_timeout=0.3, shutdown_timeout=0.3)
GET = build_request(b"/service/svc/x")


@dataclass
class TlsRig:
    """A gateway with a listener that speaks TLS."""

    rig: WireRig
    port: int
    trusting: ssl.SSLContext
    clients: list[asyncio.StreamWriter]

    async def connect(self) -> Connection:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.trusting, server_hostname="localhost"
            )
        self.clients.append(writer)
        return Connection(reader, writer)

    async def ask(self, client: Connection) -> bytes:
        client.writer.write(GET)
        async with asyncio.timeout(PATIENCE):
            return await client.reader.readuntil(b"|")


@pytest.fixture
async def tls(files: PemFiles, ca: trustme.CA) -> AsyncIterator[TlsRig]:
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    async with wire_rig(LIMITS) as rig:
        port = await rig.gateway.listen("127.0.0.1", 0, LiveContext(files).listening)
        await rig.gateway.accept()
        tls = TlsRig(rig, port, trusting, [])
        yield tls
        for writer in tls.clients:
            writer.transport.abort()


def client_hello(trusting: ssl.SSLContext) -> bytes:
    """Return the first bytes of a handshake."""
    said = ssl.MemoryBIO()
    shaking = trusting.wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        shaking.do_handshake()
    return said.read()


async def test_requests_are_served(tls: TlsRig) -> None:
    client = await tls.connect()

    assert (await tls.ask(client)).startswith(b"HTTP/1.1 200 OK")
    assert (await tls.ask(client)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("said", [GET, b"\x00" * 100, b"SSH-2.0-x\r\n", bytes(range(256)) * 100])
async def test_what_is_no_tls_gets_no_answer_and_harms_nobody(tls: TlsRig, said: bytes) -> None:
    plain = await tls.rig.client(tls.port)

    await plain.send(said)
    answer = await plain.until_closed()

    assert b"HTTP" not in answer
    assert tls.rig.backend.requests == []
    assert (await tls.ask(await tls.connect())).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
@pytest.mark.parametrize("begun", [0, 1, 20, -1], ids=["silence", "a byte", "some", "all but the end"])
async def test_a_handshake_that_stalls_is_ended_in_time(tls: TlsRig, begun: int) -> None:
    stalling = await tls.rig.client(tls.port)
    began = time.monotonic()

    await stalling.send(client_hello(tls.trusting)[:begun])
    await stalling.until_closed()

    assert time.monotonic() - began < 5
    assert tls.rig.connections == []


async def test_a_limit_of_0_is_none_for_handshakes_too(files: PemFiles, ca: trustme.CA) -> None:
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    async with wire_rig(Limits(head_timeout=0, shutdown_timeout=0.3)) as rig:
        port = await rig.gateway.listen("127.0.0.1", 0, LiveContext(files).listening)
        await rig.gateway.accept()
        tls = TlsRig(rig, port, trusting, [])
        client = await tls.connect()

        assert (await tls.ask(client)).startswith(b"HTTP/1.1 200 OK")
        client.writer.transport.abort()


async def test_a_head_that_trickles_in_is_ended_over_tls_as_well(tls: TlsRig) -> None:
    client = await tls.connect()

    client.writer.write(GET[:-2])
    async with asyncio.timeout(PATIENCE):
        assert (await client.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408 ")


async def closes_soon(tls: TlsRig) -> None:
    """Close the gateway as the end of the program does."""
    async with asyncio.timeout(LIMITS.shutdown_timeout + SHUTDOWN + 3):
        await tls.rig.gateway.close()
    assert tls.rig.connections == []


async def test_the_gateway_closes_with_idle_connections(tls: TlsRig) -> None:
    clients = [await tls.connect() for _ in range(5)]
    for client in clients:
        await tls.ask(client)

    await closes_soon(tls)

    assert [await client.reader.read() for client in clients] == [b""] * 5


async def test_the_gateway_closes_with_clients_that_never_say_goodbye(tls: TlsRig) -> None:
    """They leave the end of TLS unanswered, as one does whose process has stopped."""
    client = await tls.connect()
    await tls.ask(client)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]

    await closes_soon(tls)


async def test_the_gateway_closes_with_a_stream_whose_reader_stands_still(tls: TlsRig) -> None:
    async def pour(connection: BackendConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        while True:
            await connection.send(b"x" * 65536)

    tls.rig.backend.script = pour
    client = await tls.connect()
    client.writer.write(GET)
    await client.reader.readexactly(1000)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await eventually(lambda: any(connection.write_paused for connection in tls.rig.connections))

    await closes_soon(tls)


async def test_the_gateway_closes_with_requests_and_handshakes_under_way(tls: TlsRig) -> None:
    tls.rig.backend.script = by_hand
    waiting = await tls.connect()
    waiting.writer.write(GET)
    await tls.rig.backend.connection()
    shaking = await RawClient.connect(tls.port)
    await shaking.send(client_hello(tls.trusting)[:20])

    await closes_soon(tls)

    await shaking.until_closed()
    await shaking.close()
    assert b"200 OK" not in await waiting.reader.read()


async def test_a_refused_upload_over_tls_is_answered_and_then_ended(tls: TlsRig) -> None:
    client = await tls.connect()
    head = build_request(b"/nowhere", b"Content-Length: 100000000", method=b"POST")

    client.writer.write(head + b"x" * 100_000)
    async with asyncio.timeout(PATIENCE):
        answer = await client.reader.readuntil(b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"connection: close" in answer


async def test_a_client_that_resets_in_the_middle_of_a_handshake_leaves_nothing(tls: TlsRig) -> None:
    for length in (0, 1, 50, 200):
        client = await RawClient.connect(tls.port)
        await client.send(client_hello(tls.trusting)[:length])
        client.reset()

    assert (await tls.ask(await tls.connect())).startswith(b"HTTP/1.1 200 OK")
    with socket.create_connection(("127.0.0.1", tls.port)):
        pass
