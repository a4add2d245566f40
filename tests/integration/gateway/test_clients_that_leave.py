"""A client that leaves frees its backend at once; one that does not read is waited for, in little memory."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from tests.rigs.raw_backend import BackendConnection, answer, by_hand, ok
from tests.rigs.raw_http import RawClient, build_request
from tests.rigs.wire_rig import WireRig, eventually, exchange_of, wire_rig

from ai_proxy.core.service import Outcome
from ai_proxy.core.settings import Limits
from ai_proxy.gateway.http.upstream import UpstreamConnection

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def leave_in_order(client: RawClient) -> None:
    client.writer.close()


def leave_with_a_reset(client: RawClient) -> None:
    client.reset()


leavers = pytest.mark.parametrize("leave", [leave_in_order, leave_with_a_reset])
type Leave = Callable[[RawClient], None]


@leavers
async def test_leaving_while_waiting_for_admission_gives_up_the_place(rig: WireRig, leave: Leave) -> None:
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(build_request())
    await rig.admission.wait_for_waiting(1)

    leave(client)

    await rig.admission.wait_for_waiting(0)
    (exchange,) = await rig.recorder.recorded()
    assert exchange.status == 499
    assert rig.admission.outcomes == []


@leavers
async def test_leaving_before_the_head_closes_the_backend_connection(rig: WireRig, leave: Leave) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")

    leave(client)

    assert await backend.until_closed() == b""
    (exchange,) = await rig.recorder.recorded()
    assert exchange.status == 499
    assert rig.admission.outcomes == [("svc", Outcome.CLIENT_GONE)]


@leavers
async def test_leaving_in_the_middle_of_a_stream_closes_the_backend_connection(
    rig: WireRig, leave: Leave
) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")
    await backend.send(CHUNKED + b"5\r\nhello\r\n")
    await client.until(b"hello\r\n")

    leave(client)

    assert await backend.until_closed() == b""
    assert await rig.admission.wait_for_release() == [("svc", Outcome.CLIENT_GONE)]


@leavers
async def test_leaving_in_the_middle_of_an_upload_closes_the_backend_connection(
    rig: WireRig, leave: Leave
) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request(b"/service/svc/x", b"Content-Length: 100", method=b"POST") + b"half")
    backend = await rig.backend.connection()
    await backend.until(b"half")

    leave(client)

    assert await backend.until_closed() == b""
    assert await rig.admission.wait_for_release() == [("svc", Outcome.CLIENT_GONE)]


@leavers
async def test_leaving_in_the_middle_of_a_request_admits_nothing(rig: WireRig, leave: Leave) -> None:
    json = build_request(
        b"/service/svc/x", b"Content-Type: application/json", b"Content-Length: 9", method=b"POST"
    )
    for part in (b"GET /serv", build_request()[:-2], json + b"{"):
        client = await rig.client()
        await client.send(part)
        leave(client)

    await (await rig.client()).ask(build_request())
    assert rig.admission.outcomes == [("svc", Outcome.OK)]


async def test_leaving_while_the_connection_to_the_backend_is_made(rig: WireRig) -> None:
    rig.backend.script = by_hand
    for _ in range(20):
        client = await rig.client()
        await client.send(build_request())
        await asyncio.sleep(0)
        client.reset()

    await rig.admission.wait_for_release(len(rig.admission.outcomes))
    await eventually(lambda: not rig.connections)
    for connection in rig.backend.connections:
        await connection.until_closed()
    assert rig.admission.in_flight == {"svc": 0}


async def test_leaving_with_pipelined_requests_drops_them(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request() * 5)
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")

    client.reset()

    assert await backend.until_closed() == b""
    assert await rig.admission.wait_for_release() == [("svc", Outcome.CLIENT_GONE)]
    assert len(rig.backend.connections) == 1


async def test_leaving_with_much_sent_ahead_closes_the_backend_connection(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    client.writer.write(
        build_request(b"/service/svc/x", b"Content-Type: application/json", body=b"x" * 5000) * 60
    )
    backend = await rig.backend.connection()
    await backend.until(b"x" * 5000)
    (connection,) = rig.connections
    await eventually(lambda: connection.reading_paused)
    assert len(connection.queue) < 60

    client.reset()

    assert await backend.until_closed() == b""
    assert await rig.admission.wait_for_release() == [("svc", Outcome.CLIENT_GONE)]


@leavers
async def test_leaving_in_the_middle_of_a_paused_upload_gives_up_the_place(
    rig: WireRig, leave: Leave
) -> None:
    rig.admission.hold("svc")
    client = await rig.client()
    client.transport.set_write_buffer_limits(0)
    client.writer.write(
        build_request(b"/service/svc/x", b"Content-Length: 270000", method=b"PUT") + b"x" * 269_000
    )
    await eventually(lambda: rig.connections and rig.connections[0].reading_paused)
    await client.writer.drain()

    leave(client)

    await rig.admission.wait_for_waiting(0)
    assert rig.admission.outcomes == []


async def fill(connection: BackendConnection) -> None:
    """Answer with as much as is taken, and count it."""
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 200000000\r\n\r\n")
    connection.writer.transport.set_write_buffer_limits(0)
    for _ in range(2000):
        await connection.send(b"x" * 100_000)


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
async def test_a_client_that_does_not_read_pauses_the_backend(rig: WireRig) -> None:
    rig.backend.script = fill
    client = await rig.client(receive_buffer=4096)
    client.transport.pause_reading()
    await client.send(build_request())

    (connection,) = rig.connections
    await eventually(lambda: connection.write_paused)
    await asyncio.sleep(0.1)  # time enough to take more, were it taken

    assert connection.transport.get_write_buffer_size() < 1_000_000
    exchange = exchange_of(connection)
    assert exchange.sent < 5_000_000
    assert isinstance(exchange.upstream, UpstreamConnection)
    assert exchange.upstream.paused


async def test_a_client_that_reads_again_gets_everything(rig: WireRig) -> None:
    body = bytes(range(256)) * 40_000

    async def script(connection: BackendConnection) -> None:
        while await connection.request():
            await connection.send(ok(body))

    rig.backend.script = script
    client = await rig.client(receive_buffer=4096)
    client.transport.pause_reading()
    await client.send(build_request() * 2)
    (connection,) = rig.connections
    await eventually(lambda: connection.write_paused)

    client.transport.resume_reading()

    assert (await client.response()).body == body
    assert (await client.response()).body == body


async def test_a_client_that_never_reads_is_cut_off() -> None:
    async with wire_rig(Limits(write_timeout=0.1, shutdown_timeout=0.5)) as rig:
        rig.backend.script = fill
        client = await rig.client(receive_buffer=4096)
        client.transport.pause_reading()
        await client.send(build_request())

        outcomes = await rig.admission.wait_for_release()

        assert outcomes == [("svc", Outcome.CLIENT_GONE)]


async def test_a_client_that_does_not_read_the_end_is_cut_off() -> None:
    """The response is done and buffered; closing must not wait for its reader for ever."""
    async with wire_rig(Limits(write_timeout=0.1, shutdown_timeout=0.5)) as rig:
        rig.backend.script = answer(ok(b"x" * 60_000))
        client = await rig.client(receive_buffer=4096)
        client.transport.pause_reading()
        await client.send(b"GET ")
        await eventually(lambda: rig.connections)
        (connection,) = rig.connections
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

        await client.send(build_request(b"/service/svc/x", b"Connection: close")[4:])

        assert await rig.admission.wait_for_release() == [("svc", Outcome.OK)]
        assert connection.transport.get_write_buffer_size() > 0
        await eventually(lambda: not rig.connections)
