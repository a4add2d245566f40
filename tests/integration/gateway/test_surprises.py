"""What nobody foresaw: an error in one request, listener or account never reaches another request."""

import asyncio
import socket
import ssl
from collections.abc import Sequence

import pytest
import trustme
from loguru import logger
from tests.rigs.admission import FakeAdmission
from tests.rigs.raw_backend import BackendConnection, answer, answer_and_close, ok
from tests.rigs.raw_http import build_request
from tests.rigs.recorder import CollectingRecorder
from tests.rigs.wire_rig import eventually, exchange_of, wire_rig

from ai_proxy.core.errors import ProxyError, UnknownServiceError
from ai_proxy.core.keys import Scope
from ai_proxy.core.limits import Allowance
from ai_proxy.core.service import Lease, Outcome
from ai_proxy.core.settings import Limits
from ai_proxy.core.usage import RequestRecord
from ai_proxy.gateway.exchange import AT_ONCE
from ai_proxy.gateway.guard import Access, OpenGuard
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.tls import TlsListener
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


class Broken(FakeAdmission):
    """Raises what a port does not allow."""

    acquires = releases = True

    def acquire(self, service_id: str) -> Lease | None:
        if not self.acquires:
            raise KeyError("a defect")
        return super().acquire(service_id)

    def release(self, lease: Lease, outcome: Outcome) -> None:
        super().release(lease, outcome)
        if not self.releases:
            raise KeyError("a defect")


async def test_a_request_behind_another_that_cannot_be_admitted_is_500_and_the_connection_goes_on() -> None:
    async with wire_rig() as rig:
        rig.gateway.shared.admission = admission = Broken(rig.admission.upstreams)
        admission.acquires = False
        client = await rig.client()

        await client.send(build_request() * 2)

        assert [(await client.response()).status for _ in range(2)] == [500, 500]
        admission.acquires = True
        assert (await client.ask(build_request())).status == 200


async def test_a_lease_that_cannot_be_given_back_holds_up_no_connection() -> None:
    async with wire_rig() as rig:
        rig.gateway.shared.admission = admission = Broken(rig.admission.upstreams)
        admission.releases = False
        client = await rig.client()

        assert [(await client.ask(build_request())).status for _ in range(2)] == [200, 200]


class BrokenGuard(OpenGuard):
    """Fails to decide, or to take note of a refusal."""

    def __init__(self, *, inspects: bool) -> None:
        self._inspects = inspects

    def inspect(self, request: Request, headers: Sequence[Header], peer: str, scope: Scope | None) -> Access:
        if not self._inspects:
            raise KeyError("a defect")
        return Access()

    def refused(self, principal: Principal, request: Request, error: ProxyError) -> None:
        if self._inspects:
            raise KeyError("a defect")


@pytest.mark.threat("an operator's mistake", "an open proxy on a public address")
async def test_a_guard_that_fails_lets_nobody_in_and_is_500() -> None:
    async with wire_rig() as rig:
        rig.gateway.shared.guard = BrokenGuard(inspects=False)
        client = await rig.client()
        await client.send(build_request())

        assert (await client.response()).status == 500
        assert rig.backend.requests == []


async def test_a_refusal_that_cannot_be_noted_ends_its_request() -> None:
    async with wire_rig() as rig:
        rig.gateway.shared.guard = BrokenGuard(inspects=True)
        rig.admission.hold("svc")
        client = await rig.client()
        await client.send(build_request())
        await rig.admission.wait_for_waiting(1)

        rig.admission.refuse("svc", UnknownServiceError("svc"))

        assert await client.until_closed() == b""
        await eventually(lambda: not rig.connections)


async def test_a_body_over_the_policy_with_a_request_behind_it_is_413() -> None:
    class Small(OpenGuard):
        def inspect(
            self, request: Request, headers: Sequence[Header], peer: str, scope: Scope | None
        ) -> Access:
            return Access(max_body=10)

    async with wire_rig() as rig:
        rig.gateway.shared.guard = Small()
        client = await rig.client()
        head = b"POST /service/svc/x HTTP/1.1\r\nHost: t\r\n%b\r\nTransfer-Encoding: chunked\r\n\r\n" % JSON

        await client.send(head + b"14\r\n" + b"a" * 20 + b"\r\n0\r\n\r\n" + build_request())

        assert (await client.response(b"POST")).status == 413
        assert await client.until_closed() == b""


async def test_a_request_that_cannot_be_repeated_whole_moves_to_no_other_replica() -> None:
    async with wire_rig(services=("svc", "spare")) as rig:
        rig.admission.spares["svc"] = [rig.admission.upstreams["spare"]]
        rig.backend.script = answer_and_close(b"")
        request = build_request(b"/service/svc/x", b"Content-Type: text/plain", method=b"GET", body=b"hello")

        response = await rig.ask(request)

        assert response.status == 502
        assert rig.backends["spare"].requests == []


async def test_a_body_behind_an_upload_that_was_held_up_is_read() -> None:
    async with wire_rig() as rig:
        client = await rig.client()
        await client.ask(build_request())  # leaves a kept connection
        rig.admission.hold("svc")
        upload = (
            b"POST /service/svc/a HTTP/1.1\r\nHost: t\r\nContent-Type: x/y\r\nContent-Length: 300000\r\n\r\n"
        )
        prompt = b"POST /service/svc/b HTTP/1.1\r\nHost: t\r\n%b\r\nContent-Length: 4\r\n\r\n12" % JSON
        await client.send(upload + b"a" * 250_000)
        await rig.admission.wait_for_waiting(1)
        (connection,) = rig.connections
        await eventually(lambda: exchange_of(connection).received == 250_000)
        await client.send(b"a" * 50_000 + prompt)
        await eventually(lambda: connection.queue)

        rig.admission.open("svc")
        assert (await client.response(b"PUT")).status == 200
        await client.send(b"34")

        assert (await client.response(b"POST")).body.endswith(b"|1234")


async def test_a_client_that_waits_for_a_100_is_not_cut_off_while_the_service_loads() -> None:
    async with wire_rig(Limits(body_timeout=0.05, shutdown_timeout=0.5)) as rig:
        rig.admission.hold("svc")
        client = await rig.client()
        head = build_request(b"/service/svc/x", b"Expect: 100-continue", b"Content-Length: 5", method=b"PUT")
        await client.send(head)
        await rig.admission.wait_for_waiting(1)
        await asyncio.sleep(0.2)  # several times the limit

        rig.admission.open("svc")
        await client.until(b"100 Continue\r\n\r\n")
        await client.send(b"hello")

        assert (await client.response(b"PUT")).body.endswith(b"|hello")


async def test_a_response_that_has_begun_is_not_cut_off_for_the_rest_of_the_body() -> None:
    async with wire_rig(Limits(body_timeout=0.05, shutdown_timeout=0.5)) as rig:

        async def early(connection: BackendConnection) -> None:
            await connection.until(b"\r\n\r\n")
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            await asyncio.sleep(0.3)  # several times the limit
            await connection.send(b"defghij")

        rig.backend.script = early
        client = await rig.client()
        await client.send(build_request(b"/service/svc/x", b"Content-Length: 5", method=b"PUT") + b"a")

        assert (await client.response(b"PUT")).body == b"abcdefghij"


async def test_what_is_rejected_behind_an_ignored_upgrade_gets_its_answer() -> None:
    async with wire_rig() as rig:
        client = await rig.client()
        ignored = build_request(b"/service/svc/x", b"Connection: Upgrade", b"Upgrade: h2c")

        await client.send(ignored + b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")

        assert [(await client.response()).status for _ in range(2)] == [200, 400]


@pytest.mark.parametrize("first", [0, 1])
async def test_a_nominated_content_type_decides_nothing_wherever_it_stands(first: int) -> None:
    lines = [JSON, b"Connection: content-type"]
    async with wire_rig(Limits(max_json_body=10, shutdown_timeout=0.5)) as rig:
        response = await rig.ask(
            build_request(b"/service/svc/x", lines[first], lines[1 - first], body=b"x" * 20)
        )

        assert response.status == 200


async def test_json_lines_are_no_json_and_so_are_streamed() -> None:
    async with wire_rig(Limits(max_json_body=10, shutdown_timeout=0.5)) as rig:
        request = build_request(b"/service/svc/x", b"Content-Type: application/jsonl", body=b"x" * 20)

        assert (await rig.ask(request)).status == 200


async def test_a_shutdown_in_the_moment_of_a_tls_accept_ends() -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with wire_rig(Limits(shutdown_timeout=0.1)) as rig:
        port = await rig.gateway.listen("127.0.0.1", 0, context)
        await rig.gateway.accept()
        with socket.create_connection(("127.0.0.1", port)):
            listener = rig.gateway._servers[-1]
            assert isinstance(listener, TlsListener)
            listener._accept(listener.sockets[0])

            await rig.gateway.close()

        assert repr(rig.gateway).startswith("<Gateway [0 connections")


async def test_nothing_follows_a_response_that_is_not_whole() -> None:
    async with wire_rig() as rig:
        cut = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nabc"
        rig.backend.script = answer_and_close(cut)
        client = await rig.client()

        await client.send(build_request() + build_request(b"/service/svc/second"))

        assert (await client.until_closed()).endswith(b"abc")
        assert len(rig.backend.requests) == 1


@pytest.mark.threat("a backend", "response smuggling")
async def test_a_second_response_behind_one_whose_chunks_are_taken_off_is_never_passed_on() -> None:
    async with wire_rig() as rig:
        surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nSURPLUS"
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        rig.backend.script = answer(chunked + b"5\r\nhello\r\n0\r\n\r\n" + surplus)

        response = await rig.ask(b"GET /service/svc/x HTTP/1.0\r\n\r\n")

        assert response.body == b"hello"
        assert not rig.gateway.shared.pools.of(rig.admission.upstreams["svc"]).idle


async def test_an_upgrade_that_is_answered_from_its_head_ends_the_connection() -> None:
    async with wire_rig() as rig:
        port = await rig.gateway.redirect("127.0.0.1", 0, 443, {})
        client = await rig.client(port)
        upgrade = build_request(b"/x", b"Connection: upgrade", b"Upgrade: websocket")

        response = await client.ask(upgrade)

        assert (response.status, response.header(b"connection")) == (308, b"close")
