"""What passes from side to side of the heads, and what does not."""

import json
from dataclasses import replace

import pytest
from tests.rigs.raw_backend import answer, ok
from tests.rigs.raw_http import Message, build_request
from tests.rigs.wire_rig import WireRig

from ai_proxy.gateway.http.respond import STRICT_TRANSPORT
from ai_proxy.gateway.routing.endpoints import OPENAI

HOP_BY_HOP = (
    b"Keep-Alive: timeout=5",
    b"Proxy-Authenticate: Basic",
    b"Proxy-Authorization: Basic x",
    b"Proxy-Connection: keep-alive",
    b"TE: trailers",
    b"Trailer: X-Foo",
    b"Upgrade: h2c",
)
DROPPED = [line.partition(b":")[0].lower() for line in HOP_BY_HOP]


def names(message: Message) -> list[bytes]:
    return [name for name, _ in message.headers]


async def test_end_to_end_request_headers_arrive_as_sent_and_in_order(rig: WireRig) -> None:
    lines = (
        b"Authorization: Bearer  x",
        b"X-Two: 1",
        b"X-Two: 2",
        b"Cookie: a=b; c=d",
        b"x-\xc3: v".replace(b"\xc3", b"y"),
    )

    await rig.ask(build_request(b"/service/svc/x", *lines, b"X-Latin: caf\xe9", b"Accept:"))

    (request,) = rig.backend.requests
    assert request.headers[1:] == (
        (b"authorization", b"Bearer  x"),
        (b"x-two", b"1"),
        (b"x-two", b"2"),
        (b"cookie", b"a=b; c=d"),
        (b"x-y", b"v"),
        (b"x-latin", b"caf\xe9"),
        (b"accept", b""),
    )


async def test_hop_by_hop_request_headers_are_dropped(rig: WireRig) -> None:
    await rig.ask(build_request(b"/service/svc/x", *HOP_BY_HOP, b"X-Kept: 1"))

    (request,) = rig.backend.requests
    assert not set(DROPPED) & set(names(request))
    assert request.header(b"x-kept") == b"1"


async def test_request_headers_named_by_any_connection_header_are_dropped(rig: WireRig) -> None:
    lines = (b"X-One: 1", b"Connection: x-one, keep-alive", b"X-Two: 2", b"connection: X-TWO", b"X-Kept: 3")

    await rig.ask(build_request(b"/service/svc/x", *lines))

    (request,) = rig.backend.requests
    assert names(request) == [b"host", b"x-kept"]


async def test_connection_cannot_hide_the_framing_of_a_request(rig: WireRig) -> None:
    nominate = b"Connection: content-length, transfer-encoding, host"
    chunked = build_request(b"/service/svc/x", nominate, b"Transfer-Encoding: chunked", method=b"POST")

    assert (await rig.ask(build_request(b"/service/svc/x", nominate, body=b"abc"))).body.endswith(b"|abc")
    assert (await rig.ask(chunked + b"3\r\nabc\r\n0\r\n\r\n")).body.endswith(b"|abc")


async def test_hop_by_hop_response_headers_are_dropped(rig: WireRig) -> None:
    rig.backend.script = answer(
        ok(b"x", *HOP_BY_HOP, b"Connection: X-Private", b"X-Private: 1", b"X-Kept: 1")
    )

    response = await rig.ask(build_request())

    assert names(response) == [b"content-length", b"x-kept", b"x-request-id"]


async def test_response_headers_named_by_any_connection_header_are_dropped(rig: WireRig) -> None:
    rig.backend.script = answer(
        ok(b"x", b"X-One: 1", b"Connection: x-one", b"connection: X-Two, content-length", b"X-Two: 2")
    )

    response = await rig.ask(build_request())

    assert names(response) == [b"content-length", b"x-request-id"]
    assert response.body == b"x"


async def test_end_to_end_response_headers_arrive_as_sent(rig: WireRig) -> None:
    rig.backend.script = answer(
        ok(b"x", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"Server: llama.cpp", b"X-Latin: \xe9")
    )

    response = await rig.ask(build_request())

    assert response.all(b"set-cookie") == [b"a=1", b"b=2"]
    assert response.header(b"server") == b"llama.cpp"
    assert response.header(b"x-latin") == b"\xe9"


@pytest.mark.threat("somebody on the network", "another client's identity")
@pytest.mark.parametrize("name", [b"X-AI-Proxy-Principal", b"x-ai-proxy-principal", b"X-Ai-pRoXy-PRINCIPAL"])
async def test_a_client_cannot_set_its_own_principal(rig: WireRig, name: bytes) -> None:
    await rig.ask(build_request(b"/api/v1/services", name + b": owner"))
    await rig.ask(build_request(b"/api/v1/services", b"Connection: x-ai-proxy-principal", name + b": owner"))
    await rig.ask(build_request(b"/service/svc/x", name + b": owner"))

    assert [r.all(b"x-ai-proxy-principal") for r in rig.management.requests] == [
        [b"anonymous"],
        [b"anonymous"],
    ]
    assert rig.backend.requests[0].all(b"x-ai-proxy-principal") == []


async def test_a_sane_request_id_is_kept_and_passed_on(rig: WireRig) -> None:
    line = b"X-Request-ID: req-42.a/b:c"

    service = await rig.ask(build_request(b"/service/svc/x", line))
    management = await rig.ask(build_request(b"/health", line))
    error = await rig.ask(build_request(b"/nowhere", line))

    for response in (service, management, error):
        assert response.header(b"x-request-id") == b"req-42.a/b:c"
    assert rig.backend.requests[0].header(b"x-request-id") == b"req-42.a/b:c"
    assert rig.management.requests[0].header(b"x-request-id") == b"req-42.a/b:c"


@pytest.mark.parametrize("value", [b"", b"a b", b"x" * 129, b"\xe9", b'"', b"<script>", b"a\tb"])
async def test_an_insane_request_id_is_replaced(rig: WireRig, value: bytes) -> None:
    response = await rig.ask(build_request(b"/service/svc/x", b"X-Request-ID: " + value))

    assert response.header(b"x-request-id") not in (None, b"", value)
    assert rig.backend.requests[0].header(b"x-request-id") in (None, response.header(b"x-request-id"))


async def test_every_response_has_a_request_id_of_its_own(rig: WireRig) -> None:
    rig.backend.script = answer(ok(b"x", b"X-Request-Id: backend", b"x-request-id: again"))
    client = await rig.client()

    targets = (b"/service/svc/x", b"/nowhere", b"/health", b"/service/none/", b"/service/svc/x") * 3
    responses = [await client.ask(build_request(target)) for target in targets]
    responses.append(await client.ask(b"garbage\r\n\r\n"))

    ids = [response.header(b"x-request-id") for response in responses]
    assert all(ids)
    assert b"backend" not in ids
    assert len(set(ids)) == len(ids)


async def test_an_error_of_the_backend_passes_untouched(rig: WireRig) -> None:
    rig.backend.script = answer(
        b"HTTP/1.1 503 Loading Model\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
        b'{"error":"load"'
    )

    response = await rig.ask(build_request())

    assert response.first_line == b"HTTP/1.1 503 Service Unavailable"
    assert response.body == b'{"error":"load"'
    assert response.error_code is None


@pytest.mark.threat("a backend", "answers that impersonate the proxy")
@pytest.mark.parametrize(
    ("first_line", "passed_on"),
    [
        (b"HTTP/1.1 200 \x1b[2JAll is well", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 520 Whatever", b"HTTP/1.1 520 "),
        (b"HTTP/1.0 404 nothing", b"HTTP/1.1 404 Not Found"),
    ],
)
async def test_no_reason_phrase_of_a_backend_is_passed_on(
    rig: WireRig, first_line: bytes, passed_on: bytes
) -> None:
    rig.backend.script = answer(first_line.replace(b"\x1b", b"\xff") + b"\r\nContent-Length: 0\r\n\r\n")
    client = await rig.client()

    for _ in range(3):
        assert (await client.ask(build_request())).first_line == passed_on


@pytest.mark.threat("somebody on the network", "prompts and keys over old or weak TLS")
async def test_every_response_over_public_tls_asks_for_https_from_now_on(rig: WireRig) -> None:
    port = await rig.gateway.listen("127.0.0.1", 0, frontend=replace(OPENAI, lines=STRICT_TRANSPORT))
    await rig.gateway.accept()
    requests = [
        build_request(),
        build_request(b"/health"),
        build_request(b"/nowhere"),
        b"GET / HTTP/1.1\r\nbad\r\n\r\n",
    ]

    for request in requests:
        over_tls = await (await rig.client(port)).ask(request)
        assert over_tls.header(b"strict-transport-security") == b"max-age=31536000"
        assert (await rig.ask(request)).header(b"strict-transport-security") is None


@pytest.mark.threat("a backend", "answers that impersonate the proxy")
@pytest.mark.parametrize("status", [600, 999])
async def test_a_status_that_http_does_not_have_is_502(rig: WireRig, status: int) -> None:
    rig.backend.script = answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)

    assert (await rig.ask(build_request())).error_code == b"upstream_invalid_response"


@pytest.mark.threat("a backend", "answers that impersonate the proxy")
async def test_proxy_headers_of_a_backend_are_removed(rig: WireRig) -> None:
    said = ok(b"hello", b"X-AI-Proxy-Error: rate_limited", b"x-ai-proxy-other: 1", b"X-AI: 2")
    rig.backend.script = rig.management.script = answer(said)

    backend, management = await rig.ask(build_request()), await rig.ask(build_request(b"/api/v1/services"))

    assert (backend.error_code, backend.header(b"x-ai-proxy-other")) == (None, None)
    assert backend.header(b"x-ai") == b"2"
    assert management.error_code == b"rate_limited"


async def test_an_error_of_the_proxy_is_a_problem_and_marked(rig: WireRig) -> None:
    response = await rig.ask(build_request(b"/nowhere"))

    assert response.first_line == b"HTTP/1.1 404 Not Found"
    assert response.header(b"content-type") == b"application/problem+json"
    assert response.header(b"date") is not None
    problem = json.loads(response.body)
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(problem)
    assert problem["code"].encode() == response.error_code == b"unknown_path"


async def test_an_error_to_a_head_request_has_no_body(rig: WireRig) -> None:
    client = await rig.client()

    refusal = await client.ask(build_request(b"/nowhere", method=b"HEAD"))

    assert refusal.status == 404
    assert int(refusal.header(b"content-length") or 0) > 0
    assert (await client.ask(build_request())).status == 200


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
async def test_a_method_that_may_have_a_body_is_sent_with_a_length_of_nothing(
    rig: WireRig, method: bytes
) -> None:
    await rig.ask(build_request(method=method))

    assert rig.backend.requests[0].header(b"content-length") == b"0"
