"""Backends that are away, die, or do not speak HTTP: the client is told, and never sees a clean end."""

import asyncio
import json

import pytest
from tests.rigs.raw_backend import BackendConnection, answer, answer_and_close, by_hand, echo, ok
from tests.rigs.raw_http import TruncatedError, build_request
from tests.rigs.wire_rig import WireRig, eventually, wire_rig

from ai_proxy.core.service import Outcome, Upstream

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
INSIDE_A_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n500\r\nhello"
BEFORE_THE_LAST_LINE_END = CHUNKED + b"0\r\n"

GARBAGE = {
    "text": b"hello, this is not HTTP\r\n\r\n",
    "binary": b"\x00\x01\x02\x03\xff\xfe\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ICY": b"ICY 200 OK\r\n\r\n",
    "text that looks interim": b"something1\r\n\r\n" + ok(b"x"),
    "no status": b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "status of letters": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "interim of HTTP/1.0": b"HTTP/1.0 100 Continue\r\n\r\n" + ok(b"x"),
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
    "folded header": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "nul in a header": b"HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "compressed chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bad chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "huge head": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
    "switch nobody asked for": b"HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "switch to nothing": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
}


@pytest.mark.threat("a backend", "a truncated answer that looks complete")
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_an_answer_that_is_not_http_is_502(rig: WireRig, garbage: bytes) -> None:
    rig.backend.script = answer(garbage)
    client = await rig.client()

    response = await client.ask(build_request())

    assert (response.status, response.error_code) == (502, b"upstream_invalid_response")
    assert "svc" in json.loads(response.body)["detail"]
    assert rig.admission.outcomes == [("svc", Outcome.BROKEN)]
    rig.backend.script = answer(ok(b"well again"))
    assert (await client.ask(build_request())).body == b"well again"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_backend_that_ends_before_its_head_is_502(rig: WireRig, sent: bytes, reset: bool) -> None:
    rig.backend.script = answer_and_close(sent, reset=reset)
    client = await rig.client()

    response = await client.ask(build_request())

    assert (response.status, response.error_code) == (502, b"upstream_closed")
    assert rig.admission.outcomes == [("svc", Outcome.BROKEN)]
    assert len(rig.backend.connections) == 1
    rig.backend.script = echo
    assert (await client.ask(build_request())).status == 200


@pytest.mark.threat("a backend", "a truncated answer that looks complete")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("sent", [LENGTH, CHUNKED, INSIDE_A_CHUNK, BEFORE_THE_LAST_LINE_END])
async def test_a_response_that_breaks_off_is_visibly_truncated(
    rig: WireRig, sent: bytes, reset: bool
) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")
    await backend.send(sent)
    await client.until(b"hello")

    backend.reset() if reset else await backend.close()

    assert b"0\r\n\r\n" not in await client.until_closed()
    (exchange,) = await rig.recorder.recorded()
    assert exchange.status == 599
    assert rig.admission.outcomes == [("svc", Outcome.BROKEN)]


async def test_a_body_until_close_that_is_reset_is_visibly_truncated(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")
    await backend.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
    await client.until(b"hello")

    backend.reset()

    assert b"0\r\n\r\n" not in await client.until_closed()


async def test_bad_chunks_end_a_response_visibly(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")
    await backend.send(CHUNKED)
    await client.until(b"hello\r\n")

    await backend.send(b"xyz\r\n0\r\n\r\n")

    assert await client.until_closed() == b""
    assert rig.admission.outcomes == [("svc", Outcome.BROKEN)]


ENDLESS = {
    "trailers": (b"5\r\nhello\r\n0\r\n", b"x: y\r\n" * 1000),
    "the name of a trailer": (b"5\r\nhello\r\n0\r\n", b"y" * 6000),
    "the value of a trailer": (b"5\r\nhello\r\n0\r\nx: ", b"y" * 6000),
    "a chunk extension": (b"5\r\nhello\r\n1;", b"y" * 6000),
}


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize(("beginning", "more"), ENDLESS.values(), ids=ENDLESS)
async def test_what_never_ends_behind_a_body_ends_the_response_visibly(
    rig: WireRig, beginning: bytes, more: bytes, version: bytes
) -> None:
    sent = 0

    async def flood(connection: BackendConnection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + beginning)
        while True:
            await connection.send(more)
            sent += len(more)

    rig.backend.script = flood
    client = await rig.client()

    await client.send(b"GET /service/svc/x HTTP/%b\r\nHost: h\r\n\r\n" % version)

    assert b"hello" in await client.until_closed()
    await eventually(lambda: rig.admission.outcomes == [("svc", Outcome.BROKEN)])
    assert sent < 16 * 1024 * 1024


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\n"])
async def test_interim_responses_without_end_are_502(rig: WireRig, interim: bytes) -> None:
    async def flood(connection: BackendConnection) -> None:
        await connection.request()
        while True:
            await connection.send(interim * 100)

    rig.backend.script = flood

    response = await rig.ask(build_request())

    assert (response.status, response.error_code) == (502, b"upstream_invalid_response")
    assert "interim" in json.loads(response.body)["detail"]


async def test_a_truncated_response_is_told_from_a_whole_one(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(CHUNKED)
    client = await rig.client()

    with pytest.raises(TruncatedError):
        await client.ask(build_request())


async def test_a_refused_connection_is_502(rig: WireRig) -> None:
    await rig.backend.stop()
    client = await rig.client()

    response = await client.ask(build_request())

    assert (response.status, response.error_code) == (502, b"upstream_connect_failed")
    assert rig.admission.outcomes == [("svc", Outcome.CONNECT_FAILED)]
    assert (await client.ask(build_request(b"/health"))).status == 200


async def test_a_name_that_cannot_be_resolved_is_502(rig: WireRig) -> None:
    rig.admission.upstreams["svc"] = Upstream("no-such-host.invalid", 80)

    assert (await rig.ask(build_request())).error_code == b"upstream_connect_failed"


async def test_a_management_app_that_is_away_is_502() -> None:
    async with wire_rig() as rig:
        await rig.management.stop()

        assert (await rig.ask(build_request(b"/health"))).error_code == b"upstream_connect_failed"


async def stale(connection: BackendConnection) -> None:
    """Serve one request; take the next and close."""
    await connection.request()
    await connection.send(ok(b"first"))
    await connection.request()


@pytest.mark.parametrize("body", [b"", b'{"a": 1}'])
async def test_a_request_is_tried_once_more_when_an_old_connection_was_stale(
    rig: WireRig, body: bytes
) -> None:
    rig.backend.script = stale
    client = await rig.client()
    assert (await client.ask(build_request())).body == b"first"

    rig.backend.script = echo
    response = await client.ask(
        build_request(b"/service/svc/x", b"Content-Type: application/json", body=body)
    )

    assert response.body.endswith(b" /x HTTP/1.1|" + body)
    assert len(rig.backend.connections) == 2
    assert rig.admission.outcomes == [("svc", Outcome.OK)] * 2


async def test_a_request_is_not_tried_twice_more(rig: WireRig) -> None:
    rig.backend.script = stale
    client = await rig.client()
    await client.ask(build_request())

    rig.backend.script = answer_and_close(b"")
    response = await client.ask(build_request())

    assert response.error_code == b"upstream_closed"
    assert len(rig.backend.connections) == 2


@pytest.mark.parametrize(
    "sent",
    [b"H", b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\n\r\n"],
)
async def test_a_request_is_not_tried_again_when_anything_was_received(rig: WireRig, sent: bytes) -> None:
    async def script(connection: BackendConnection) -> None:
        await connection.request()
        await connection.send(ok(b"first"))
        await connection.request()
        await connection.send(sent)

    rig.backend.script = script
    client = await rig.client()
    await client.ask(build_request())

    response = await client.ask(build_request())

    assert response.error_code == b"upstream_closed"
    assert len(rig.backend.connections) == 1


async def test_a_kept_connection_that_has_ended_is_not_used(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(ok(b"x"))
    client = await rig.client()

    for _ in range(10):
        assert (await client.ask(build_request())).body == b"x"
        await asyncio.sleep(0)
    assert len(rig.backend.requests) <= 20
