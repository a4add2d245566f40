"""Keep-alive, pipelining, and requests cut into pieces."""

import asyncio

import pytest
from tests.rigs.raw_backend import BackendConnection, answer, ok
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import WireRig, wire_rig

from ai_proxy.core.settings import Limits

JSON = b"Content-Type: application/json"


async def test_serves_many_requests_on_one_connection_with_one_backend_connection(rig: WireRig) -> None:
    client = await rig.client()

    bodies = [(await client.ask(build_request(b"/service/svc/%d" % n))).body for n in range(20)]

    assert bodies == [b"GET /%d HTTP/1.1|" % n for n in range(20)]
    assert len(rig.backend.connections) == 1


async def test_answers_a_request_that_comes_byte_by_byte(rig: WireRig) -> None:
    client = await rig.client()

    for byte in build_request(b"/service/svc/slow", JSON, body=b'{"a": 1}'):
        await client.send(bytes([byte]))

    assert (await client.response()).body == b'POST /slow HTTP/1.1|{"a": 1}'


async def test_answers_chunked_requests_that_come_byte_by_byte(rig: WireRig) -> None:
    client = await rig.client()
    head = build_request(b"/service/svc/slow", b"Transfer-Encoding: chunked", method=b"PUT")

    for byte in (head + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n") * 2:
        await client.send(bytes([byte]))

    for _ in range(2):
        assert (await client.response()).body == b"PUT /slow HTTP/1.1|abcde"


async def test_answers_pipelined_requests_in_order(rig: WireRig) -> None:
    client = await rig.client()
    bodies = [b"x" * n for n in (1, 5000, 0, 100, 60000, 3)]

    await client.send(b"".join(build_request(b"/service/svc/%d" % len(b), JSON, body=b) for b in bodies))

    for body in bodies:
        method = b"POST" if body else b"GET"
        assert (await client.response()).body == b"%b /%d HTTP/1.1|%b" % (method, len(body), body)


async def test_answers_errors_and_management_in_their_turn_behind_data(rig: WireRig) -> None:
    release = asyncio.Event()

    async def slow(connection: BackendConnection) -> None:
        while await connection.request():
            await release.wait()
            await connection.send(ok(b"data"))

    rig.backend.script = slow
    client = await rig.client()

    targets = (b"/service/svc/1", b"/nowhere", b"/service/none/", b"/api/v1/services", b"/service/svc/2")
    await client.send(b"".join(build_request(target) for target in targets))
    await rig.backend.connection()
    release.set()

    responses = [await client.response() for _ in targets]
    assert [r.status for r in responses] == [200, 404, 404, 200, 200]
    assert [r.body for r in responses if r.status == 200] == [
        b"data",
        b"GET /api/v1/services HTTP/1.1|",
        b"data",
    ]


async def test_answers_a_malformed_request_after_those_before_it(rig: WireRig) -> None:
    client = await rig.client()

    await client.send(build_request() + b"GARBAGE\r\n\r\n" + build_request())

    assert (await client.response()).status == 200
    refusal = await client.response()
    assert (refusal.status, refusal.error_code) == (400, b"malformed_request")
    assert await client.until_closed() == b""


async def test_bounds_what_a_pipelining_client_may_send_ahead(rig: WireRig) -> None:
    rig.admission.hold("svc")
    client = await rig.client()

    await client.send(build_request() * 1000)
    await rig.admission.wait_for_waiting(1)
    rig.admission.open("svc")

    answered = (await client.until_closed()).count(b"HTTP/1.1 200 OK")
    assert 1 <= answered <= 66
    assert len(rig.backend.requests) == answered


async def test_a_long_body_before_a_cut_head_is_not_counted_as_head() -> None:
    async with wire_rig(Limits(max_head=4096)) as rig:
        client = await rig.client()
        second = build_request(b"/service/svc/second")

        await client.send(build_request(b"/service/svc/first", JSON, body=b"x" * 60000) + second[:20])
        assert (await client.response()).status == 200
        await client.send(second[20:])

        assert (await client.response()).body == b"GET /second HTTP/1.1|"


async def test_a_connection_close_is_honoured_and_nothing_after_it_is_served(rig: WireRig) -> None:
    client = await rig.client()

    await client.send(
        build_request(b"/service/svc/1", b"Connection: close") + build_request(b"/service/svc/2")
    )

    response = await client.response()
    assert response.header(b"connection") == b"close"
    assert await client.until_closed() == b""
    assert [request.target for request in rig.backend.requests] == [b"/1"]


async def test_a_client_may_switch_service_on_every_request() -> None:
    services = ("a", "b", "c")
    async with wire_rig(services=services) as rig:
        for service_id, backend in rig.backends.items():
            backend.script = answer(ok(service_id.encode()))
        client = await rig.client()

        order = ("a", "b", "a", "c", "c", "b", "a", "c")
        await client.send(b"".join(build_request(f"/service/{s}/x".encode()) for s in order))

        assert [(await client.response()).body for _ in order] == [s.encode() for s in order]


@pytest.mark.parametrize("empty", [b"\r\n", b"\r\n\r\n", b"\n"])
async def test_empty_lines_before_a_request_are_ignored(rig: WireRig, empty: bytes) -> None:
    client = await rig.client()

    assert (await client.ask(empty + build_request())).status == 200
    assert (await client.ask(empty + build_request())).status == 200


async def test_records_every_exchange_and_gives_every_lease_back(rig: WireRig) -> None:
    client = await rig.client()

    await client.ask(build_request(body=b"12345"))
    await client.ask(build_request(b"/service/none/"))

    served, refused = await rig.recorder.recorded(2)
    assert (served.service_id, served.status, served.received) == ("svc", 200, 5)
    assert served.sent == len(b"POST /x HTTP/1.1|12345")
    assert 0 <= served.first_byte <= served.seconds
    assert (refused.service_id, refused.status) == ("", 404)
    assert rig.admission.outcomes == [("svc", "ok")]
