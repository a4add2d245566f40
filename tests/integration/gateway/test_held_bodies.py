"""What is held of requests is counted from the first byte, and bounded for each client and in all."""

import asyncio
import gc
import json
from collections.abc import Sequence

import pytest
from tests.integration.gateway.models import CHAT, JSON, chunk, offer
from tests.rigs.raw_backend import BackendConnection, ok
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import eventually, wire_rig

from ai_proxy.core.keys import Scope
from ai_proxy.core.limits import Allowance
from ai_proxy.core.settings import Limits
from ai_proxy.gateway.exchange import Exchange
from ai_proxy.gateway.guard import Access, OpenGuard
from ai_proxy.gateway.http.client import Reading
from ai_proxy.gateway.http.request import Request
from ai_proxy.gateway.http.wire import Header
from ai_proxy.gateway.inference.prompt import LARGE
from ai_proxy.gateway.principal import Principal
from ai_proxy.security.limiter import Meter

FEW = Limits(
    max_json_body=200_000,
    max_held_bodies=500_000,
    max_held_bodies_per_client=200_000,
    shutdown_timeout=0.5,
)
BEGUN = build_request(CHAT, JSON, b"Content-Length: 150000", method=b"POST") + b"x" * 120_000


class Metered(OpenGuard):
    """Takes the client's name from the header `who`; allows each one request at once."""

    def __init__(self) -> None:
        self.meters: dict[str, Meter] = {}

    def inspect(self, request: Request, headers: Sequence[Header], peer: str, scope: Scope | None) -> Access:
        name = request.header(b"who").decode()
        if not name:
            return Access()
        meter = self.meters.setdefault(name, Meter(name))
        meter.allow(Allowance(concurrency=1), Allowance(), 0.0)
        return Access(Principal(name, name, meters=(meter,)))


def begun(who: bytes) -> bytes:
    return BEGUN.replace(b"\r\n", b"\r\nwho: " + who + b"\r\n", 1)


@pytest.mark.threat("an ordinary key", "more memory than its budget")
async def test_a_request_is_counted_before_its_body_is_held() -> None:
    async with wire_rig(FEW) as rig:
        rig.gateway.shared.guard = Metered()
        first, second = await rig.client(), await rig.client()
        await first.send(begun(b"a"))
        await eventually(lambda: rig.gateway.shared.held.total == 120_000)

        await second.send(begun(b"a"))

        assert (await second.response(b"POST")).status == 429
        assert rig.gateway.shared.held.total == 120_000
        await first.close()
        await eventually(lambda: not rig.gateway.shared.held.total)


@pytest.mark.threat("an ordinary key", "more memory than its budget")
async def test_a_client_is_told_100_only_when_its_request_is_within_its_limits() -> None:
    async with wire_rig(FEW) as rig:
        rig.gateway.shared.guard = Metered()
        first, second = await rig.client(), await rig.client()
        await first.send(begun(b"a"))
        await eventually(lambda: rig.gateway.shared.held.total)
        expects = (b"who: a", b"Expect: 100-continue", b"Content-Length: 9")

        await second.send(build_request(CHAT, JSON, *expects, method=b"POST"))

        assert (await second.until_closed()).startswith(b"HTTP/1.1 429")


@pytest.mark.threat("an ordinary key", "more memory than its budget")
async def test_one_client_holds_no_more_than_its_share() -> None:
    async with wire_rig(FEW) as rig:
        first, second = await rig.client(), await rig.client()
        await first.send(BEGUN)
        await eventually(lambda: rig.gateway.shared.held.total == 120_000)

        await second.send(BEGUN)

        refused = await second.response(b"POST")
        assert (refused.status, refused.error_code) == (503, b"overloaded")
        assert b"max_held_bodies_per_client_mb" in refused.body
        assert rig.gateway.shared.held.total == 120_000


async def test_what_was_held_is_given_back_when_the_backend_answers() -> None:
    async with wire_rig(FEW) as rig:
        rig.gateway.publish([offer(models=("m",))])
        answers = asyncio.Event()

        async def answer_later(connection: BackendConnection) -> None:
            await connection.request()
            await answers.wait()
            await connection.send(ok(b"thanks"))

        rig.backend.script = answer_later
        held = rig.gateway.shared.held
        body = json.dumps({"model": "m", "x": "y" * 150_000}).encode()
        request = build_request(CHAT, JSON, body=body)
        client = await rig.client()
        await client.send(request[:100_000])
        await eventually(lambda: held.total > 90_000)
        await client.send(request[100_000:])
        await eventually(lambda: rig.backend.requests)
        assert held.total

        answers.set()

        assert (await client.response(b"POST")).body == b"thanks"
        assert held.total == 0


@pytest.mark.threat("an ordinary key", "more memory than its budget")
async def test_bodies_of_requests_that_wait_for_a_start_are_counted() -> None:
    async with wire_rig(FEW) as rig:
        rig.gateway.publish([offer(models=("m",))])
        rig.admission.hold("svc")
        body = json.dumps({"model": "m", "x": "y" * 150_000}).encode()
        first, second = await rig.client(), await rig.client()
        await first.send(build_request(CHAT, JSON, body=body))
        await rig.admission.wait_for_waiting(1)

        refused = await second.ask(build_request(CHAT, JSON, body=body))
        rig.admission.open("svc")

        assert (refused.status, refused.error_code) == (503, b"overloaded")
        assert (await first.response(b"POST")).status == 200
        assert rig.gateway.shared.held.total == 0


async def test_an_upload_that_waits_is_counted_until_it_is_passed_on() -> None:
    async with wire_rig(FEW) as rig:
        rig.admission.hold("svc")
        client = await rig.client()
        await client.send(
            build_request(b"/service/svc/x", b"Content-Length: 100000", method=b"PUT") + b"x" * 90_000
        )
        await rig.admission.wait_for_waiting(1)
        await eventually(lambda: rig.gateway.shared.held.total == 90_000)

        rig.admission.open("svc")

        await eventually(lambda: not rig.gateway.shared.held.total)
        await client.send(b"x" * 10_000)
        assert (await client.response(b"PUT")).status == 200


async def test_what_was_read_ahead_is_given_back_when_its_client_leaves() -> None:
    async with wire_rig(FEW) as rig:
        rig.admission.hold("svc")
        client = await rig.client()
        await client.send(build_request() + BEGUN[:50_000])
        await rig.admission.wait_for_waiting(1)
        await eventually(lambda: rig.gateway.shared.held.total)

        await client.close()

        await eventually(lambda: not rig.connections)
        assert rig.gateway.shared.held.total == 0


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
async def test_other_requests_are_answered_while_a_large_body_is_read() -> None:
    async with wire_rig() as rig:
        rig.gateway.publish([offer(models=("m",), aliases={"alias": "m"})])
        body = json.dumps({"model": "alias", "x": "y" * LARGE}).encode()

        large = await rig.ask(build_request(CHAT, JSON, body=body))
        unknown = await rig.ask(build_request(CHAT, JSON, body=body.replace(b"alias", b"nope.")))

        assert (large.status, unknown.status) == (200, 404)
        assert json.loads(rig.backend.requests[0].body)["model"] == "m"


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
@pytest.mark.parametrize("size", [1000, LARGE + 1])
async def test_nothing_of_a_refused_body_is_kept(size: int) -> None:
    async with wire_rig() as rig:
        rig.gateway.publish([offer(models=("m",))])
        client = await rig.client()
        await client.ask(build_request())
        gc.collect()
        gc.disable()
        try:
            for model in (b"none", b'm","model":"m'):
                body = b'{"model":"%b","x":"%b"}' % (model, b"y" * size)
                await client.send(build_request(CHAT, JSON, body=body))
                await client.response(b"POST")
            await eventually(lambda: not any(isinstance(one, Exchange) for one in gc.get_objects()))
        finally:
            gc.enable()


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
async def test_nothing_of_a_body_is_kept_when_its_client_leaves() -> None:
    async with wire_rig(FEW) as rig:
        client = await rig.client()
        gc.collect()
        gc.disable()
        try:
            await client.send(BEGUN)
            await eventually(lambda: rig.gateway.shared.held.total)

            await client.close()

            await eventually(lambda: not any(isinstance(one, Exchange) for one in gc.get_objects()))
        finally:
            gc.enable()


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
async def test_a_broken_body_is_released_while_its_client_reads_the_error() -> None:
    async with wire_rig(FEW) as rig:
        client = await rig.client()
        gc.collect()
        gc.disable()
        try:
            await client.send(build_request(CHAT, JSON, b"Transfer-Encoding: chunked", method=b"POST"))
            await client.send(chunk(b"x" * 100_000))
            await eventually(lambda: rig.gateway.shared.held.total)

            await client.send(b"no size\r\n")
            await eventually(lambda: not rig.gateway.shared.held.total)

            assert rig.connections[0].reading is Reading.LINGERING
            assert not any(isinstance(one, Exchange) for one in gc.get_objects())
        finally:
            gc.enable()


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
async def test_a_large_body_of_too_many_members_is_400() -> None:
    async with wire_rig() as rig:
        rig.gateway.publish([offer(models=("m",), aliases={"alias": "m"})])
        members = b",".join(b'"%x":1' % number for number in range(100_000))

        response = await rig.ask(build_request(CHAT, JSON, body=b'{"model":"alias",%b}' % members))

        assert response.status == 400
        assert b"more than 1000 members" in response.body


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
@pytest.mark.parametrize("kind", [JSON, b"Content-Type: text/plain"])
@pytest.mark.parametrize("framing", [b"Content-Length: 2000000", b"Transfer-Encoding: chunked"])
async def test_a_large_body_for_the_management_app_is_refused(kind: bytes, framing: bytes) -> None:
    async with wire_rig() as rig:
        client = await rig.client()
        await client.send(build_request(b"/v1/models", kind, framing, method=b"POST"))
        if framing.startswith(b"T"):
            await client.send((b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 20)

        response = await client.response(b"POST")

        assert (response.status, response.error_code) == (413, b"body_too_large")
        assert b"must not exceed 1 MB" in response.body


@pytest.mark.threat("somebody on the network", "exhaustion of memory or CPU time")
async def test_too_many_headers_are_refused_before_the_head_has_ended() -> None:
    async with wire_rig() as rig:
        client = await rig.client()

        await client.send(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 1000)
        await eventually(lambda: rig.connections and rig.connections[0].reading is Reading.LINGERING)
        assert rig.connections[0]._headers == []

        assert (await client.until_closed()).startswith(b"HTTP/1.1 431")


HALF_A_HEAD = b"GET /service/svc/x HTTP/1.1\r\nHost: test\r\nX-A: " + b"a" * 40_000


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_heads_that_do_not_end_are_bounded_together() -> None:
    async with wire_rig(FEW) as rig:
        held = rig.gateway.shared.held
        clients = [await rig.client() for _ in range(5)]
        for client in clients[:4]:
            await client.send(HALF_A_HEAD)
        await eventually(lambda: held.total == 4 * len(HALF_A_HEAD))

        await clients[4].send(HALF_A_HEAD)

        assert (await clients[4].response()).error_code == b"overloaded"
        await clients[0].send(b"\r\n\r\n")
        assert (await clients[0].response()).status == 200
        await eventually(lambda: held.total == 3 * len(HALF_A_HEAD))
        for client in clients[1:]:
            await client.close()
        await eventually(lambda: not held.total)


async def test_heads_that_come_in_pieces_are_counted_while_they_come() -> None:
    async with wire_rig(FEW) as rig:
        client, whole = await rig.client(), build_request()
        requests = whole * 40
        for begin in range(0, len(requests), len(whole) - 1):
            await client.send(requests[begin : begin + len(whole) - 1])
            await asyncio.sleep(0)

        for _ in range(40):
            assert (await client.response()).status == 200
        assert rig.gateway.shared.held.total == 0
