"""Clients that speak HTTP/1.0: one request, no chunks, and the end of the connection ends the body."""

import pytest
from tests.rigs.raw_backend import BackendConnection, answer, answer_and_close, by_hand, ok
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import WireRig

from ai_proxy.core.service import Outcome
from ai_proxy.gateway.http.upstream import SLICE

GET = b"GET /service/svc/x HTTP/1.0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("line", [b"", b"Connection: keep-alive\r\n", b"Host: x\r\nConnection: close\r\n"])
async def test_a_request_is_answered_and_the_connection_ends(rig: WireRig, line: bytes) -> None:
    client = await rig.client()

    await client.send(b"GET /service/svc/x HTTP/1.0\r\n" + line + b"\r\n" + GET)

    response = await client.response()
    assert response.body == b"GET /x HTTP/1.1|"
    assert response.header(b"connection") == b"close"
    assert await client.until_closed() == b""
    assert len(rig.backend.requests) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        [CHUNKED + b"5\r\nhello\r\n6;ext\r\n world\r\n0\r\nX: y\r\n\r\n"],
        [CHUNKED, b"5\r\nhello\r\n6;ext\r\n world\r\n0\r\n\r\n"],
        [CHUNKED + b"5\r\nhel", b"lo\r\n6\r\n world\r\n0", b"\r\n\r\n"],
        [bytes([byte]) for byte in CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"],
    ],
    ids=["at once", "head first", "torn", "byte by byte"],
)
async def test_chunks_are_taken_off(rig: WireRig, pieces: list[bytes]) -> None:
    async def script(connection: BackendConnection) -> None:
        await connection.request()
        for piece in pieces:
            await connection.send(piece)

    rig.backend.script = script
    response = await rig.ask(GET)

    assert response.header(b"transfer-encoding") is None
    assert response.body == b"hello world"
    assert rig.admission.outcomes == [("svc", Outcome.OK)]


async def test_a_body_until_close_passes_as_it_is(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(b"HTTP/1.1 200 OK\r\n\r\nhello")

    response = await rig.ask(GET)

    assert response.header(b"transfer-encoding") is None
    assert response.body == b"hello"


@pytest.mark.parametrize("reset", [False, True])
async def test_chunks_that_break_off_end_in_a_reset(rig: WireRig, reset: bool) -> None:
    rig.backend.script = answer_and_close(CHUNKED + b"5\r\nhello\r\n", reset=reset)
    client = await rig.client()

    await client.send(GET)

    with pytest.raises(ConnectionResetError):
        await client.until_eof()
    assert rig.admission.outcomes == [("svc", Outcome.BROKEN)]


async def test_bad_chunks_end_in_a_reset(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(GET)
    backend = await rig.backend.connection()
    await backend.send(CHUNKED + b"5\r\nhello\r\n")
    await client.until(b"hello")

    await backend.send(b"zz\r\n")

    with pytest.raises(ConnectionResetError):
        await client.until_eof()


async def test_what_follows_the_last_chunk_is_dropped(rig: WireRig) -> None:
    rig.backend.script = answer(CHUNKED + b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")

    assert (await rig.ask(GET)).body == b"hello"


async def test_a_connection_that_dechunked_passes_chunks_on_to_the_next_client(rig: WireRig) -> None:
    rig.backend.script = answer(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")

    await rig.ask(GET)
    response = await rig.ask(build_request())

    assert response.header(b"transfer-encoding") == b"chunked"
    assert response.body == b"hello"
    assert len(rig.backend.connections) == 1


async def test_a_backend_of_http10_is_understood(rig: WireRig) -> None:
    rig.backend.script = answer(b"HTTP/1.0 200 Fine\r\nContent-Length: 2\r\n\r\nok")

    for _ in range(2):
        response = await rig.ask(build_request())
        assert response.first_line == b"HTTP/1.1 200 OK"
        assert response.body == b"ok"
    assert len(rig.backend.connections) == 2


async def test_a_body_is_taken(rig: WireRig) -> None:
    response = await rig.ask(b"POST /service/svc/x HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")

    assert response.body == b"POST /x HTTP/1.1|abc"


async def test_the_length_of_a_response_is_kept(rig: WireRig) -> None:
    rig.backend.script = answer(ok(b"hello"))

    assert (await rig.ask(GET)).header(b"content-length") == b"5"


async def test_a_connection_is_not_used_again_when_more_came_than_a_long_response_has(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(GET)
    engine = await rig.backend.connection()
    await engine.request()
    await engine.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nbegun" % (5 + 2 * SLICE))
    await client.until(b"begun")

    await engine.send(b"x" * 2 * SLICE + b"y" * 9)

    assert (await client.until_closed()).strip(b"x") == b""
    await (await rig.client()).send(GET)
    await rig.backend.connection(2)
