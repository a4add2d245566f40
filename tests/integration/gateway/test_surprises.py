"""What nobody foresaw: an error in one request, listener or account never reaches another request."""

import asyncio
import ssl
from collections.abc import Sequence

import pytest
import trustme
from loguru import logger
from tests.rigs.admission import FakeAdmission
from tests.rigs.raw_backend import BackendConnection, answer, ok
from tests.rigs.raw_http import build_request
from tests.rigs.recorder import CollectingRecorder
from tests.rigs.wire_rig import eventually, wire_rig

from ai_proxy.core.keys import Scope
from ai_proxy.core.limits import Allowance
from ai_proxy.core.service import Outcome
from ai_proxy.core.settings import Limits
from ai_proxy.core.usage import RequestRecord
from ai_proxy.gateway.exchange import AT_ONCE
from ai_proxy.gateway.guard import Access, OpenGuard
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.wire import Header
from ai_proxy.gateway.principal import Principal
from ai_proxy.security.limiter import Meter

JSON = b"Content-Type: application/json"
PROMPT = build_request(b"/v1/chat/completions", JSON, body=b'{"model":"svc"}')
ANSWER = ok(b'{"a":1}', JSON)


class BrokenRecorder(CollectingRecorder):
    """Fails whenever it is given something to record."""

    def finished(self, record: RequestRecord) -> None:
        raise ValueError("a listener of the metrics")

    def settle(self) -> None:
        raise ValueError("a listener of the metrics")


class OneAtATime(OpenGuard):
    """Allows a client one request at once."""

    def __init__(self) -> None:
        self.meter = Meter("the API key k")
        self.meter.allow(Allowance(concurrency=1), Allowance(), 0.0)

    def inspect(self, request: Request, headers: Sequence[Header], peer: str, scope: Scope | None) -> Access:
        return Access(Principal("k", "1.2.3.4", meters=(self.meter,)))


class Inexplicable(FakeAdmission):
    """Fails to say why a request waits."""

    def wait_reason(self, service_id: str) -> str:
        raise ValueError(f"no reason for {service_id}")


async def test_a_request_that_cannot_be_recorded_gives_everything_back_and_its_connection_goes_on() -> None:
    async with wire_rig() as rig:
        rig.backend.script = answer(ANSWER)
        rig.gateway.shared.recorder = BrokenRecorder()
        rig.gateway.shared.guard = guard = OneAtATime()
        client = await rig.client()

        statuses = [(await client.ask(PROMPT)).status for _ in range(3)]

        assert statuses == [200] * 3
        assert guard.meter.active == 0
        assert rig.admission.in_flight == {"svc": 0}


async def test_time_limits_hold_although_a_sweep_failed() -> None:
    async with wire_rig(Limits(keep_alive_timeout=0.1, shutdown_timeout=0.5)) as rig:
        recorder, rig.gateway.shared.recorder = rig.gateway.shared.recorder, BrokenRecorder()
        idle = await rig.client()

        assert await idle.until_closed() == b""
        rig.gateway.shared.recorder = recorder


async def test_a_request_that_fails_in_a_way_nobody_foresaw_is_500_and_logged() -> None:
    logged: list[str] = []
    sink = logger.add(lambda message: logged.append(str(message)), format="{message}")
    async with wire_rig() as rig:
        rig.admission.hold("svc")
        client = await rig.client()
        await client.send(PROMPT)
        await rig.admission.wait_for_waiting(1)

        rig.admission.refuse("svc", KeyError("a defect"))  # type: ignore[arg-type]
        response = await client.response(b"POST")

    logger.remove(sink)
    assert (response.status, response.error_code) == (500, b"internal")
    assert b"defect" not in response.body
    assert any("KeyError: 'a defect'" in line for line in logged)


async def test_a_comment_that_cannot_be_made_ends_the_request_and_gives_up_its_place() -> None:
    async with wire_rig() as rig:
        rig.gateway.shared.admission = admission = Inexplicable(rig.admission.upstreams)
        admission.hold("svc")
        client = await rig.client()

        await client.send(build_request(b"/v1/chat/completions", JSON, body=b'{"model":"svc","stream":true}'))

        assert b"the proxy failed to handle this request" in await client.until_closed()
        await admission.wait_for_waiting(0)


async def kill_after(connection: BackendConnection, seconds: float) -> None:
    """Answer the first request of a connection, and end the connection some time after the second."""
    await connection.request()
    await connection.send(ANSWER)
    await connection.request()
    await asyncio.sleep(seconds)
    connection.writer.transport.abort()


async def test_a_prompt_that_kills_its_engine_kills_it_once() -> None:
    async with wire_rig() as rig:
        rig.backend.script = lambda connection: kill_after(connection, AT_ONCE * 1.5)
        client = await rig.client()
        await client.ask(PROMPT)

        response = await client.ask(PROMPT)

        assert (response.status, response.error_code) == (502, b"upstream_closed")
        assert len(rig.backend.requests) == 2
        assert (await rig.admission.wait_for_release(2))[1] == ("svc", Outcome.BROKEN)


async def test_a_request_on_a_connection_that_the_backend_had_closed_is_sent_again() -> None:
    async with wire_rig() as rig:
        rig.backend.script = lambda connection: kill_after(connection, 0)
        client = await rig.client()
        await client.ask(PROMPT)

        response = await client.ask(PROMPT)

        assert response.status == 200
        assert len(rig.backend.connections) == 2


@pytest.mark.parametrize("count", [3, 30])
async def test_tls_connections_count_before_their_handshake(count: int) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with wire_rig(Limits(max_connections=3, shutdown_timeout=0.5)) as rig:
        port = await rig.gateway.listen("127.0.0.1", 0, context)
        await rig.gateway.accept()

        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
        refused = held[3:]
        await eventually(lambda: all(reader.at_eof() or reader.exception() for reader, _ in refused))

        assert not any(reader.at_eof() for reader, _ in held[:3])
        for _, writer in held:
            writer.transport.abort()
        await eventually(lambda: repr(rig.gateway).startswith("<Gateway [0 connections"))


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered() -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with wire_rig() as rig:
        port = await rig.gateway.listen("127.0.0.1", 0, context)
        await rig.gateway.accept()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
            else:
                break

        tls.write(build_request())
        writer.write(outgoing.read())  # the last message of the handshake, and the request

        answered = b""
        while b"\r\n\r\n" not in answered:
            incoming.write(await reader.read(65536))
            try:
                answered += tls.read(65536)
            except ssl.SSLWantReadError:
                continue
        writer.transport.abort()
        assert answered.startswith(b"HTTP/1.1 200 OK")
