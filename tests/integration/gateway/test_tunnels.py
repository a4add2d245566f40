"""Upgrade: a tunnel of bytes when the backend agrees, plain HTTP when it does not."""

import asyncio

import pytest
from tests.rigs.raw_backend import BackendConnection, answer, by_hand, ok
from tests.rigs.raw_http import RawClient, build_request
from tests.rigs.wire_rig import WireRig, eventually
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from ai_proxy.core.service import Outcome, Upstream

UPGRADE = build_request(
    b"/service/svc/ws", b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: k"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: a\r\nX-Request-ID: theirs\r\n\r\n"
)


async def open_tunnel(rig: WireRig, early: bytes = b"") -> tuple[RawClient, BackendConnection]:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(UPGRADE + early)
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")
    return client, backend


async def test_the_handshake_passes_with_its_headers(rig: WireRig) -> None:
    seen: list[bytes] = []

    async def script(connection: BackendConnection) -> None:
        seen.append(await connection.until(b"\r\n\r\n"))
        await connection.send(SWITCH)
        await asyncio.Event().wait()

    rig.backend.script = script
    response = await rig.ask(UPGRADE)

    assert response.first_line == b"HTTP/1.1 101 Switching Protocols"
    assert response.header(b"upgrade") == b"websocket"
    assert response.header(b"connection") == b"upgrade"
    assert response.header(b"sec-websocket-accept") == b"a"
    assert response.header(b"x-request-id") not in (None, b"theirs")
    assert seen[0].startswith(b"GET /ws HTTP/1.1\r\n")
    assert b"connection: upgrade\r\nupgrade: websocket\r\n" in seen[0]
    assert b"Sec-WebSocket-Key: k\r\n" in seen[0]


async def test_bytes_pass_both_ways_whatever_they_are(rig: WireRig) -> None:
    client, backend = await open_tunnel(rig)
    await backend.send(SWITCH)
    await client.until(b"\r\n\r\n")

    for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 1000, b"\r\n\r\n"):
        await client.send(data)
        assert await backend.reader.readexactly(len(data)) == data
        await backend.send(data)
        assert await client.reader.readexactly(len(data)) == data


async def test_bytes_sent_early_by_either_side_arrive(rig: WireRig) -> None:
    client, backend = await open_tunnel(rig, early=b"client first")
    await client.send(b", and more")
    await backend.send(SWITCH + b"backend first")

    assert (await client.until(b"backend first")).endswith(b"\r\n\r\nbackend first")
    assert await backend.until(b"more") == b"client first, and more"


async def test_a_tunnel_may_be_asked_for_behind_other_requests(rig: WireRig) -> None:
    async def script(connection: BackendConnection) -> None:
        while request := await connection.request():
            if request.header(b"upgrade") is None:
                await connection.send(ok(b"plain"))
                continue
            await connection.send(SWITCH)
            await connection.send(await connection.until(b"!"))

    rig.backend.script = script
    client = await rig.client()

    await client.send(build_request() * 2 + UPGRADE + b"hello!")

    assert [(await client.response()).body for _ in range(2)] == [b"plain", b"plain"]
    assert (await client.response()).status == 101
    assert await client.until(b"!") == b"hello!"


async def test_a_tunnel_holds_its_lease_until_it_is_closed(rig: WireRig) -> None:
    client, backend = await open_tunnel(rig)
    await backend.send(SWITCH)
    await client.until(b"\r\n\r\n")
    assert rig.admission.in_flight == {"svc": 1}

    await client.send(b"12345")
    await backend.until(b"12345")
    await backend.send(b"123")
    await client.until(b"123")
    client.writer.close()

    assert await rig.admission.wait_for_release() == [("svc", Outcome.CLIENT_GONE)]
    assert await backend.until_closed() == b""
    (exchange,) = await rig.recorder.recorded()
    assert (exchange.status, exchange.received, exchange.sent) == (101, 5, 3)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_backend_that_leaves_closes_the_client(rig: WireRig, reset: bool) -> None:
    client, backend = await open_tunnel(rig)
    await backend.send(SWITCH + b"bye")
    await client.until(b"bye")

    backend.reset() if reset else await backend.close()

    assert await client.until_closed() == b""
    assert await rig.admission.wait_for_release() == [("svc", Outcome.OK)]


async def test_a_tunnel_whose_backend_does_not_read_pauses_the_client(rig: WireRig) -> None:
    client, backend = await open_tunnel(rig)
    backend.transport.pause_reading()
    await backend.send(SWITCH)
    await client.until(b"\r\n\r\n")

    client.writer.write(b"x" * 30_000_000)
    (connection,) = rig.connections
    await eventually(lambda: connection.reading_paused)

    assert connection.current is not None
    assert connection.current.received < 20_000_000
    backend.transport.resume_reading()
    async with asyncio.timeout(60):
        assert len(await backend.reader.readexactly(30_000_000)) == 30_000_000


async def test_bytes_sent_early_without_end_pause_the_client(rig: WireRig) -> None:
    client, _ = await open_tunnel(rig)

    client.writer.write(b"x" * 30_000_000)
    (connection,) = rig.connections
    await eventually(lambda: connection.reading_paused)

    assert len(connection.ahead) < 1_000_000


@pytest.mark.parametrize("early", [b"", b"x" * 100_000])
async def test_a_refused_upgrade_is_answered_and_closed(rig: WireRig, early: bytes) -> None:
    rig.backend.script = answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    client = await rig.client()

    response = await client.ask(UPGRADE + early)

    assert (response.status, response.body, response.error_code) == (403, b"no", None)
    assert response.header(b"connection") == b"close"
    assert await client.until_eof() == b""


async def test_an_upgrade_to_an_unknown_service_is_404(rig: WireRig) -> None:
    response = await rig.ask(UPGRADE.replace(b"/svc/", b"/none/"))

    assert (response.status, response.error_code) == (404, b"unknown_service")


async def test_an_upgrade_to_a_dead_backend_is_502(rig: WireRig) -> None:
    await rig.backend.stop()

    assert (await rig.ask(UPGRADE)).error_code == b"upstream_connect_failed"


async def test_the_management_app_may_have_tunnels(rig: WireRig) -> None:
    rig.management.script = answer(SWITCH + b"hi")
    client = await rig.client()

    await client.send(UPGRADE.replace(b"/service/svc/ws", b"/api/v1/ws"))

    assert (await client.until(b"hi")).startswith(b"HTTP/1.1 101")


H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAA")


@pytest.mark.parametrize("body", [b"", b'{"a": 1}', b"x" * 300_000])
@pytest.mark.parametrize("kind", [b"Content-Type: application/json", b"Content-Type: text/plain"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upgrade_to_h2c_is_served_as_plain_http(
    rig: WireRig, body: bytes, kind: bytes, chunked: bool
) -> None:
    request = build_request(b"/service/svc/x", *H2C, kind, method=b"POST", body=body)
    if chunked:
        pieces = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        head = build_request(b"/service/svc/x", *H2C, kind, b"Transfer-Encoding: chunked", method=b"POST")
        request = head + pieces + b"0\r\n\r\n"
    client = await rig.client()

    await client.send(request * 2 + build_request(b"/service/svc/next"))

    for _ in range(2):
        assert (await client.response()).body == b"POST /x HTTP/1.1|" + body
    assert (await client.response()).body == b"GET /next HTTP/1.1|"
    assert all(
        r.header(b"upgrade") is None and r.header(b"http2-settings") is None for r in rig.backend.requests
    )


async def test_an_upgrade_to_h2c_may_come_byte_by_byte(rig: WireRig) -> None:
    client = await rig.client()

    for byte in build_request(b"/service/svc/x", *H2C, body=b"hello") + build_request():
        await client.send(bytes([byte]))

    assert (await client.response()).body == b"POST /x HTTP/1.1|hello"
    assert (await client.response()).body == b"GET /x HTTP/1.1|"


async def test_an_upgrade_with_a_body_is_served_as_plain_http(rig: WireRig) -> None:
    request = build_request(b"/service/svc/x", b"Connection: upgrade", b"Upgrade: websocket", body=b"hello")
    client = await rig.client()

    await client.send(request + build_request())

    assert (await client.response()).body == b"POST /x HTTP/1.1|hello"
    assert (await client.response()).status == 200
    assert rig.backend.requests[0].header(b"upgrade") is None


async def test_an_upgrade_in_http10_is_ignored(rig: WireRig) -> None:
    response = await rig.ask(UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"))

    assert response.status == 200
    assert rig.backend.requests[0].header(b"upgrade") is None


async def test_an_upgrade_without_connection_is_ignored(rig: WireRig) -> None:
    client = await rig.client()

    for _ in range(2):
        assert (await client.ask(build_request(b"/service/svc/x", b"Upgrade: websocket"))).status == 200


async def test_a_real_websocket_echoes_through_the_proxy(rig: WireRig) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        rig.admission.upstreams["svc"] = Upstream("127.0.0.1", port)
        async with connect(f"ws://127.0.0.1:{rig.port}/service/svc/", proxy=None) as websocket:
            for message in ("hello", b"\x00\xff" * 100_000, "x" * 500_000, ""):
                await websocket.send(message)
                assert await websocket.recv() == message
            await (await websocket.ping())
            await websocket.close(4001, "enough")
        assert websocket.close_code == 4001
    assert await rig.admission.wait_for_release() in ([("svc", Outcome.OK)], [("svc", Outcome.CLIENT_GONE)])
