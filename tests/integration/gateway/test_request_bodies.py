"""Bodies: JSON is held and sent with its length, everything else is streamed; and Expect: 100-continue."""

import asyncio
import os

import pytest
from tests.rigs.raw_backend import BackendConnection, answer_and_close, by_hand, ok
from tests.rigs.raw_http import RawClient, build_request
from tests.rigs.wire_rig import WireRig, wire_rig

from ai_proxy.core.errors import ServiceStoppedError
from ai_proxy.core.settings import Limits
from ai_proxy.platform.tasks import spawn

JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SMALL = Limits(max_json_body=1000, shutdown_timeout=0.5)


@pytest.mark.parametrize(
    "kind", [JSON, b"content-type: application/json; charset=utf-8", b"CONTENT-TYPE: APPLICATION/JSON"]
)
async def test_a_chunked_json_body_is_sent_on_with_its_length(rig: WireRig, kind: bytes) -> None:
    client = await rig.client()
    await client.send(build_request(b"/service/svc/x", kind, CHUNKED, method=b"POST") + b"3\r\n{}\n\r\n")

    await client.send(b"1;ext\r\n \r\n0\r\nX-Trailer: no\r\n\r\n")

    assert (await client.response()).body == b"POST /x HTTP/1.1|{}\n "
    (request,) = rig.backend.requests
    assert request.header(b"content-length") == b"4"
    assert request.header(b"transfer-encoding") is None
    assert request.header(b"x-trailer") is None


async def test_a_json_body_reaches_the_backend_only_when_it_is_whole(rig: WireRig) -> None:
    client = await rig.client()

    await client.send(build_request(b"/service/svc/x", JSON, b"Content-Length: 4", method=b"POST") + b"{}")
    await (await rig.client()).ask(build_request(b"/service/svc/other"))
    assert [request.target for request in rig.backend.requests] == [b"/other"]
    await client.send(b"  ")

    assert (await client.response()).body == b"POST /x HTTP/1.1|{}  "


async def test_any_other_body_is_streamed_chunk_by_chunk(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request(b"/service/svc/x", CHUNKED, method=b"POST") + b"5\r\nhello\r\n")
    backend = await rig.backend.connection()
    assert await backend.until(b"5\r\nhello\r\n")

    await client.send(b"6\r\n world\r\n")
    assert await backend.until(b"6\r\n world\r\n")
    await client.send(b"0\r\n\r\n")
    assert await backend.until(b"0\r\n\r\n")
    await backend.send(ok(b"thanks"))

    assert (await client.response()).body == b"thanks"


async def test_a_body_of_known_length_is_streamed_with_it(rig: WireRig) -> None:
    body = os.urandom(3_000_000)
    client = await rig.client()

    response = await client.ask(build_request(body=body))

    assert response.body == b"POST /x HTTP/1.1|" + body
    assert rig.backend.requests[0].header(b"content-length") == b"3000000"
    assert (await client.ask(build_request())).status == 200


@pytest.mark.parametrize("held", [False, True])
async def test_a_client_is_paused_while_the_backend_does_not_read(*, held: bool) -> None:
    async with wire_rig() as rig:
        if held:
            rig.admission.hold("svc")
        else:
            rig.backend.script = by_hand
        client = await rig.client()
        client.writer.write(build_request(b"/service/svc/x", b"Content-Length: 100000000", method=b"PUT"))
        accepted = await send_until_stuck(client)

        assert accepted < 20_000_000
        (connection,) = rig.connections
        assert connection.reading_paused


async def send_until_stuck(client: RawClient, limit: int = 60_000_000) -> int:
    """Send until nothing is taken for a while; return how much was."""
    piece, sent = b"x" * 100_000, 0
    client.writer.transport.set_write_buffer_limits(0)
    try:
        while sent < limit:
            async with asyncio.timeout(0.3):
                await client.send(piece)
            sent += len(piece)
    except TimeoutError:
        pass
    return sent


async def test_an_upload_that_was_paused_arrives_whole(rig: WireRig) -> None:
    go_on = asyncio.Event()

    async def late(connection: BackendConnection) -> None:
        await go_on.wait()
        request = await connection.request()
        assert request is not None
        await connection.send(ok(b"%d" % len(request.body)))

    rig.backend.script = late
    client = await rig.client()
    sending = spawn(client.ask(build_request(body=b"x" * 20_000_000)), "upload")
    (await rig.backend.connection())
    await asyncio.sleep(0.1)  # let every buffer on the way fill up
    go_on.set()

    assert (await sending).body == b"20000000"


@pytest.mark.parametrize("framing", ["length", "chunked", "one chunk"])
async def test_a_json_body_beyond_the_limit_is_413(framing: str) -> None:
    async with wire_rig(SMALL) as rig:
        client = await rig.client()
        if framing == "length":
            await client.send(build_request(b"/service/svc/x", JSON, body=b"x" * 1001))
        else:
            chunks = (
                b"3e9\r\n" + b"x" * 1001 if framing == "one chunk" else b"100\r\n%b\r\n" % (b"x" * 256) * 4
            )
            await client.send(build_request(b"/service/svc/x", JSON, CHUNKED, method=b"POST") + chunks)

        response = await client.response()

        assert (response.status, response.error_code) == (413, b"body_too_large")
        assert rig.backend.requests == []


async def test_a_json_body_at_the_limit_passes() -> None:
    async with wire_rig(SMALL) as rig:
        client = await rig.client()
        head = build_request(b"/service/svc/x", JSON, CHUNKED, method=b"POST")

        assert (await client.ask(build_request(b"/service/svc/x", JSON, body=b"x" * 1000))).status == 200
        assert (await client.ask(head + b"3e8\r\n%b\r\n0\r\n\r\n" % (b"x" * 1000))).status == 200


async def test_a_streamed_body_has_no_limit() -> None:
    async with wire_rig(SMALL) as rig:
        assert (await rig.ask(build_request(body=b"x" * 100_000))).status == 200


@pytest.mark.threat("somebody on the network", "request smuggling")
@pytest.mark.parametrize("target", [b"/nowhere", b"/service/none/x", b"/service/svc/x"])
async def test_the_body_of_a_rejected_request_is_never_parsed_as_a_request(target: bytes) -> None:
    async with wire_rig(SMALL) as rig:
        if target == b"/service/svc/x":
            rig.admission.refuse("svc", ServiceStoppedError("stopped"))
        smuggled = build_request(b"/api/v1/services")
        client = await rig.client()

        await client.send(build_request(target, b"X: y", body=smuggled * 3) + build_request(b"/health"))

        assert (await client.response()).error_code is not None
        rest = await asyncio.wait_for(read_rest(client), 60)
        assert rest.count(b"HTTP/1.1") <= 1
        assert [request.target for request in rig.management.requests] in ([], [b"/health"])


async def read_rest(client: RawClient) -> bytes:
    client.writer.write_eof()
    return await client.until_closed()


@pytest.mark.parametrize(
    ("target", "status"), [(b"/nowhere", 404), (b"/service/none/", 404), (b"/service/svc/", 413)]
)
async def test_a_client_that_sends_megabytes_to_an_error_reads_all_of_the_answer(
    target: bytes, status: int
) -> None:
    async with wire_rig(SMALL) as rig:
        client = await rig.client()

        response = await client.ask(build_request(target, JSON, body=b"x" * 5_000_000))

        assert response.status == status
        assert response.header(b"connection") == b"close"
        assert await client.until_eof() == b"", "an orderly end, not a reset"


async def test_an_early_answer_of_the_backend_ends_the_upload(rig: WireRig) -> None:
    async def reject(connection: BackendConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.send(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno")
        await asyncio.Event().wait()

    rig.backend.script = reject
    client = await rig.client()

    response = await client.ask(build_request(body=b"x" * 5_000_000))

    assert (response.status, response.body, response.error_code) == (401, b"no", None)
    assert await client.until_eof() == b""
    assert rig.admission.outcomes == [("svc", "ok")]


async def test_an_early_answer_with_close_reaches_the_client(rig: WireRig) -> None:
    async def reject(connection: BackendConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.send(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")

    rig.backend.script = reject
    client = await rig.client()

    response = await client.ask(build_request(body=b"x" * 5_000_000))

    assert (response.status, response.body) == (413, b"no")


async def test_an_upload_and_its_response_may_overlap(rig: WireRig) -> None:
    async def duplex(connection: BackendConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            piece = await connection.reader.readexactly(9)
            await connection.send(piece)
        await connection.until(b"0\r\n\r\n")
        await connection.send(b"0\r\n\r\n")

    rig.backend.script = duplex
    client = await rig.client()
    await client.send(build_request(b"/service/svc/x", CHUNKED, method=b"POST"))
    await client.until(b"\r\n\r\n")

    for _ in range(3):
        await client.send(b"4\r\nping\r\n")
        assert await client.reader.readexactly(9) == b"4\r\nping\r\n"
    await client.send(b"0\r\n\r\n")

    assert await client.reader.readexactly(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("kind", [JSON, b"Content-Type: multipart/form-data; boundary=x"])
async def test_a_client_that_expects_100_gets_it_before_it_sends_the_body(rig: WireRig, kind: bytes) -> None:
    client = await rig.client()
    head = build_request(
        b"/service/svc/x", kind, b"Expect: 100-Continue", b"Content-Length: 2", method=b"POST"
    )

    for _ in range(2):
        await client.send(head)
        assert await client.reader.readexactly(len(CONTINUE)) == CONTINUE
        await client.send(b"{}")
        assert (await client.response()).body == b"POST /x HTTP/1.1|{}"
    assert all(request.header(b"expect") is None for request in rig.backend.requests)


async def test_no_100_when_the_body_is_there_already(rig: WireRig) -> None:
    response = await rig.ask(build_request(b"/service/svc/x", JSON, b"Expect: 100-continue", body=b"{}"))

    assert response.status == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (build_request(b"/nowhere", b"Expect: 100-continue", b"Content-Length: 5", method=b"POST"), 404),
        (
            build_request(
                b"/service/svc/", JSON, b"Expect: 100-continue", b"Content-Length: 1001", method=b"POST"
            ),
            413,
        ),
    ],
    ids=["unknown path", "too large"],
)
async def test_no_100_for_a_request_that_is_refused(head: bytes, status: int) -> None:
    async with wire_rig(SMALL) as rig:
        response = await rig.ask(head)

        assert response.status == status
        assert response.header(b"connection") == b"close"


async def test_no_100_for_an_upload_that_is_not_admitted(rig: WireRig) -> None:
    rig.admission.refuse("svc", ServiceStoppedError("stopped"))

    response = await rig.ask(
        build_request(b"/service/svc/", b"Expect: 100-continue", b"Content-Length: 1001", method=b"POST")
    )

    assert response.status == 503


async def test_an_unknown_expectation_is_ignored(rig: WireRig) -> None:
    assert (await rig.ask(build_request(b"/service/svc/x", b"Expect: wonders"))).status == 200


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_endless_trailers_are_431() -> None:
    async with wire_rig(Limits(max_head=4096)) as rig:
        client = await rig.client()
        await client.send(
            build_request(b"/service/svc/x", JSON, CHUNKED, method=b"POST") + b"1\r\n1\r\n0\r\n"
        )

        client.writer.write(b"X-Trailer: value\r\n" * 50_000)

        assert (await client.response()).error_code == b"head_too_large"


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_endless_chunk_extensions_are_431() -> None:
    async with wire_rig(Limits(max_head=4096)) as rig:
        client = await rig.client()
        await client.send(build_request(b"/service/svc/x", CHUNKED, method=b"POST") + b"1;x=")

        for _ in range(10):
            await client.send(b"y" * 1000)

        assert (await client.response()).error_code == b"head_too_large"


async def test_a_backend_that_dies_under_an_upload_is_502(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(b"", reset=True)
    client = await rig.client()

    await client.send(build_request(b"/service/svc/x", CHUNKED, method=b"POST") + b"1\r\n1\r\n0\r\n\r\n")

    assert (await client.response()).error_code == b"upstream_closed"
