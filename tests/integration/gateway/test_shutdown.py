"""The end: nothing new, streams run out within the limit, what remains is cut."""

import asyncio

import pytest
from tests.rigs.raw_backend import by_hand, ok
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import WireRig, eventually, wire_rig

from ai_proxy.core.service import Outcome
from ai_proxy.core.settings import Limits
from ai_proxy.platform.tasks import spawn

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_idle_connections_are_closed_at_once(rig: WireRig) -> None:
    used, fresh = await rig.client(), await rig.client()
    await used.ask(build_request())
    await eventually(lambda: len(rig.connections) == 2)

    await rig.gateway.close()

    assert await used.until_eof() == b""
    assert await fresh.until_eof() == b""


async def test_no_new_connection_is_taken(rig: WireRig) -> None:
    await rig.gateway.close()

    with pytest.raises(ConnectionRefusedError):
        await rig.client()


async def test_streams_run_out(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.send(CHUNKED + b"1\r\na\r\n")
    await client.until(b"1\r\na\r\n")

    closing = spawn(rig.gateway.close(), "close")
    await asyncio.sleep(0.05)
    await backend.send(b"1\r\nb\r\n")
    assert await client.until(b"b\r\n")
    assert not closing.done()
    await backend.send(b"0\r\n\r\n")

    assert await client.until_eof() == b"0\r\n\r\n"
    await closing
    assert rig.admission.outcomes == [("svc", Outcome.OK)]


async def test_a_response_that_begins_during_the_end_announces_the_close(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")

    closing = spawn(rig.gateway.close(), "close")
    await asyncio.sleep(0)
    await backend.send(ok(b"x"))

    assert (await client.response()).header(b"connection") == b"close"
    await closing


async def test_what_takes_too_long_is_cut() -> None:
    async with wire_rig(Limits(shutdown_timeout=0.1)) as rig:
        rig.backend.script = by_hand
        stream, waiting, tunnel = await rig.client(), await rig.client(), await rig.client()
        await stream.send(build_request())
        await (await rig.backend.connection()).send(CHUNKED + b"1\r\na\r\n")
        await tunnel.send(build_request(b"/service/svc/x", b"Connection: upgrade", b"Upgrade: x"))
        await (await rig.backend.connection(2)).send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
        )
        await tunnel.until(b"\r\n\r\n")
        await stream.until(b"a\r\n")
        rig.admission.hold("svc")
        await waiting.send(build_request())
        await rig.admission.wait_for_waiting(1)

        async with asyncio.timeout(60):
            await rig.gateway.close()

        assert await stream.until_closed() == b""
        assert await tunnel.until_closed() == b""
        assert await waiting.until_closed() == b""
        assert rig.admission.outcomes == [("svc", Outcome.CLIENT_GONE)] * 2
        assert rig.admission.waiting == 0


async def test_kept_backend_connections_are_closed(rig: WireRig) -> None:
    client = await rig.client()
    await client.ask(build_request())

    await rig.gateway.close()

    await eventually(rig.backend.connections[0].transport.is_closing)
