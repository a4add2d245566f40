"""What one client may take: sizes, counts, and time."""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing

import pytest
import trustme
from loguru import logger
from tests.rigs.raw_backend import by_hand, ok
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import eventually, wire_rig

from ai_proxy.core.service import Outcome
from ai_proxy.core.settings import Limits
from ai_proxy.gateway.listener import HEALTH_RESERVE, leave_out_failed_accepts
from ai_proxy.platform.tasks import spawn

SOON = 0.1
"""Seconds of the limit under test; every other limit is far away."""
HEADS = Limits(max_head=4096, max_headers=20, shutdown_timeout=0.5)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"

TOO_MUCH = {
    "one huge header": build_request(b"/service/svc/x", b"A: " + b"x" * 5000),
    "headers of too much size": build_request(
        b"/service/svc/x", *(b"A%d: %b" % (i, b"x" * 400) for i in range(15))
    ),
    "too many headers": build_request(b"/service/svc/x", *(b"A%d: b" % i for i in range(21))),
    "huge target": build_request(b"/service/svc/" + b"x" * 5000),
    "huge header name": build_request(b"/service/svc/x", b"x" * 5000 + b": b"),
    "huge unfinished target": b"GET /service/svc/" + b"x" * 5000,
    "huge unfinished header": build_request(b"/service/svc/x", b"A: " + b"x" * 5000)[:-4],
}


@pytest.mark.parametrize("request_bytes", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_a_head_beyond_the_limits_is_431(request_bytes: bytes) -> None:
    async with wire_rig(HEADS) as rig:
        response = await rig.ask(request_bytes)

        assert (response.status, response.error_code) == (431, b"head_too_large")
        assert response.header(b"connection") == b"close"
        assert rig.backend.requests == []


async def test_a_head_beyond_the_limits_is_431_also_behind_another_request() -> None:
    async with wire_rig(HEADS) as rig:
        client = await rig.client()

        await client.send(build_request() + TOO_MUCH["one huge header"])

        assert (await client.response()).status == 200
        assert (await client.response()).status == 431


async def test_a_head_that_trickles_beyond_the_limit_is_431() -> None:
    async with wire_rig(HEADS) as rig:
        client = await rig.client()
        await client.send(b"GET /service/svc/x HTTP/1.1\r\n")

        async def trickle() -> None:
            while True:
                await client.send(b"A: " + b"x" * 200 + b"\r\n")
                await asyncio.sleep(0)

        trickling = spawn(trickle(), "trickle")
        response = await client.response()
        trickling.cancel()

        assert response.status == 431


async def test_a_head_within_the_limits_passes() -> None:
    async with wire_rig(HEADS) as rig:
        assert (await rig.ask(build_request(b"/service/svc/x", b"A: " + b"x" * 3900))).status == 200
        assert (
            await rig.ask(build_request(b"/service/svc/x", *(b"A%d: b" % i for i in range(19))))
        ).status == 200


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
@pytest.mark.parametrize("trickle", [False, True])
async def test_a_head_that_takes_too_long_is_408(trickle: bool) -> None:
    async with wire_rig(Limits(head_timeout=SOON, shutdown_timeout=0.5)) as rig:
        client = await rig.client()
        await client.ask(build_request())
        await client.send(b"GET /service/svc/x HTTP/1.1\r\nA: ")

        async def drip() -> None:
            while trickle:
                await client.send(b"x")
                await asyncio.sleep(0.01)

        dripping = spawn(drip(), "drip")
        response = await client.response()
        dripping.cancel()

        assert (response.status, response.error_code) == (408, b"request_timeout")
        assert response.header(b"connection") == b"close"


@pytest.mark.parametrize("kind", [b"Content-Type: application/json", b"Content-Type: text/plain"])
async def test_a_body_that_stalls_is_408(kind: bytes) -> None:
    async with wire_rig(Limits(body_timeout=SOON, shutdown_timeout=0.5)) as rig:
        rig.backend.script = by_hand
        client = await rig.client()

        response = await client.ask(
            build_request(b"/service/svc/x", kind, b"Content-Length: 9", method=b"POST") + b"x"
        )

        assert (response.status, response.error_code) == (408, b"request_timeout")
        assert await client.until_eof() == b""
        assert set(rig.admission.outcomes) <= {("svc", Outcome.OK)}


async def test_a_body_that_trickles_is_waited_for() -> None:
    async with wire_rig(Limits(body_timeout=SOON, shutdown_timeout=0.5)) as rig:
        client = await rig.client()
        await client.send(build_request(b"/service/svc/x", b"Content-Length: 10", method=b"POST"))

        for _ in range(10):
            await asyncio.sleep(SOON / 3)
            await client.send(b"x")

        assert (await client.response()).body == b"POST /x HTTP/1.1|xxxxxxxxxx"


async def test_a_backend_that_does_not_answer_is_504() -> None:
    async with wire_rig(response_timeout=SOON) as rig:
        rig.backend.script = by_hand
        client = await rig.client()

        response = await client.ask(build_request())

        assert (response.status, response.error_code) == (504, b"upstream_timeout")
        assert rig.admission.outcomes == [("svc", Outcome.TIMEOUT)]
        backend = await rig.backend.connection()
        await backend.until_closed()
        assert (await client.ask(build_request(b"/health"))).status == 200


async def test_a_backend_that_answers_in_time_is_waited_for() -> None:
    async with wire_rig(response_timeout=SOON * 3) as rig:
        rig.backend.script = by_hand
        client = await rig.client()
        for _ in range(3):
            await client.send(build_request())
            backend = await rig.backend.connection()
            await backend.until(b"\r\n\r\n")
            await asyncio.sleep(SOON)
            await backend.send(ok(b"x"))
            assert (await client.response()).status == 200


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
async def test_a_stream_that_falls_silent_is_truncated() -> None:
    async with wire_rig(stream_idle_timeout=SOON) as rig:
        rig.backend.script = by_hand
        client = await rig.client()
        await client.send(build_request())
        backend = await rig.backend.connection()
        await backend.send(CHUNKED)

        received = await client.until_closed()

        assert received.endswith(b"5\r\nhello\r\n")
        assert rig.admission.outcomes == [("svc", Outcome.TIMEOUT)]


async def test_a_stream_that_goes_on_is_waited_for() -> None:
    async with wire_rig(stream_idle_timeout=SOON) as rig:
        rig.backend.script = by_hand
        client = await rig.client()
        await client.send(build_request())
        backend = await rig.backend.connection()
        await backend.send(CHUNKED)

        for _ in range(10):
            await asyncio.sleep(SOON / 3)
            await backend.send(b"1\r\nx\r\n")
        await backend.send(b"0\r\n\r\n")

        assert (await client.response()).body == b"hello" + b"x" * 10


async def test_a_silent_tunnel_is_left_alone() -> None:
    async with wire_rig(Limits(keep_alive_timeout=SOON, body_timeout=SOON), stream_idle_timeout=SOON) as rig:
        rig.backend.script = by_hand
        client = await rig.client()
        await client.send(build_request(b"/service/svc/x", b"Connection: upgrade", b"Upgrade: x"))
        backend = await rig.backend.connection()
        await backend.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        await client.until(b"\r\n\r\n")

        await asyncio.sleep(SOON * 4)
        await client.send(b"still there?")

        assert await backend.until(b"?")


async def test_a_management_stream_may_be_silent() -> None:
    async with wire_rig(response_timeout=SOON, stream_idle_timeout=SOON) as rig:
        rig.management.script = by_hand
        client = await rig.client()
        await client.send(build_request(b"/api/v1/events"))
        management = await rig.management.connection()
        await asyncio.sleep(SOON * 3)
        await management.send(CHUNKED)
        await asyncio.sleep(SOON * 3)
        await management.send(b"0\r\n\r\n")

        assert (await client.response()).body == b"hello"


@pytest.mark.parametrize("before", [b"", build_request(), b"\r\n\r\n"])
async def test_an_idle_connection_is_closed_without_a_word(before: bytes) -> None:
    async with wire_rig(Limits(keep_alive_timeout=SOON, shutdown_timeout=0.5)) as rig:
        client = await rig.client()
        if before.strip():
            await client.ask(before)
        else:
            await client.send(before)

        assert await client.until_eof() == b""


async def test_a_wait_for_admission_is_not_limited_by_the_wire() -> None:
    async with wire_rig(Limits(keep_alive_timeout=SOON, body_timeout=SOON), response_timeout=SOON) as rig:
        rig.admission.hold("svc")
        client = await rig.client()
        await client.send(build_request())
        await asyncio.sleep(SOON * 4)

        rig.admission.open("svc")

        assert (await client.response()).status == 200


async def test_health_is_answered_beyond_the_cap() -> None:
    async with wire_rig(Limits(max_connections=1, shutdown_timeout=0.5)) as rig:
        first = await rig.client()
        await first.ask(build_request())
        second = await rig.client()

        response = await second.ask(build_request(b"/health"))

        assert response.status == 200
        assert await second.until_eof() == b""
        assert (await first.ask(build_request())).status == 200


async def test_health_is_answered_beyond_the_cap_over_tls_too() -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with wire_rig(Limits(max_connections=1, shutdown_timeout=0.5)) as rig:
        port = await rig.gateway.listen("127.0.0.1", 0, context)
        await rig.gateway.accept()
        first = await rig.client()
        await first.ask(build_request())

        answers = []
        for path in (b"/health", b"/service/svc/x"):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
            )
            writer.write(build_request(path))
            answers.append((await reader.read(-1)).partition(b"\r\n")[0])
            writer.transport.abort()

        assert answers == [b"HTTP/1.1 200 OK", b"HTTP/1.1 503 Service Unavailable"]


@contextlib.contextmanager
def no_files_left() -> Iterator[None]:
    """Let this process open no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("over_tls", [False, True])
async def test_a_lack_of_files_is_logged_once_and_clients_are_accepted_afterwards(over_tls: bool) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{level} {message}")
    async with wire_rig() as rig:
        asyncio.get_running_loop().set_exception_handler(leave_out_failed_accepts)
        port = await rig.gateway.listen("127.0.0.1", 0, context if over_tls else None)
        await rig.gateway.accept()
        loop = asyncio.get_running_loop()
        early, late = (socket.socket() for _ in range(2))
        with closing(early), closing(late):
            early.setblocking(False)
            late.setblocking(False)

            with no_files_left():
                await loop.sock_connect(early, ("127.0.0.1", port))
                await eventually(lambda: any("new clients are not served" in line for line in lines))
                for _ in range(20):
                    rig.gateway._check_files()
            await eventually(lambda: any("new clients are served again" in line for line in lines))
            await loop.sock_connect(late, ("127.0.0.1", port))
            await eventually(lambda: not repr(rig.gateway).startswith("<Gateway [0 connections"))
    logger.remove(sink)

    assert len([line for line in lines if line.startswith("ERROR") and "not served" in line]) == 1
    assert len(lines) <= 3


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_connections_far_beyond_the_cap_are_refused_before_they_ask() -> None:
    async with wire_rig(Limits(max_connections=1, shutdown_timeout=0.5)) as rig:
        held = [await rig.client() for _ in range(1 + HEALTH_RESERVE)]
        await eventually(lambda: len(rig.connections) == len(held))

        crowded = await rig.client()

        assert (await crowded.response()).error_code == b"overloaded"


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_a_connection_beyond_the_cap_is_told_so() -> None:
    async with wire_rig(Limits(max_connections=2, shutdown_timeout=0.5)) as rig:
        first, second = await rig.client(), await rig.client()
        await first.ask(build_request())
        await second.ask(build_request())

        third = await rig.client()
        await third.send(build_request())
        refusal = await third.response()

        assert (refusal.status, refusal.error_code) == (503, b"overloaded")
        assert refusal.header(b"retry-after") is not None
        assert await third.until_eof() == b""
        assert (await first.ask(build_request())).status == 200
        await second.close()
        await third.close()
        await eventually(lambda: len(rig.connections) == 1)
        assert (await rig.ask(build_request())).status == 200
