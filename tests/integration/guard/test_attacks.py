"""Headers, bodies and methods by which a client may try to get around the guard."""

import base64
import io

import pytest
from loguru import logger
from tests.integration.gateway.models import CHAT, JSON, offer
from tests.integration.guard.conftest import House, bearer
from tests.rigs.raw_backend import by_hand
from tests.rigs.raw_http import build_request

from ai_proxy.core.keys import MAX_PRESENTED, Scope
from ai_proxy.security.keys import KeyRing

SERVICE = b"/service/svc/x"
ADMIN = b"/api/v1/keys"
SMUGGLED = build_request(ADMIN)
WRONG = b"aip_0123456789ab_" + b"x" * 49


def unseen(house: House) -> bool:
    """Tell whether neither a backend nor the management app has heard of anything."""
    return not house.rig.backend.requests and not house.rig.management.requests


@pytest.mark.parametrize(
    "value",
    [b"Basic %b", b"Bearer x%b", b"Bearer, %b", b"Digest %b", b"%b", b'Bearer "%b"', b"Bearer:%b"],
)
async def test_a_key_in_another_form_is_none(house: House, value: bytes) -> None:
    key, _ = await house.key()

    response = await house.ask(SERVICE, b"Authorization: " + value % key)

    assert (response.status, unseen(house)) == (401, True)


@pytest.mark.parametrize(
    "header", [b"Cookie: ", b"Proxy-Authorization: Bearer ", b"X_Api_Key: ", b"X-Api-Key2: ", b"X-Key: "]
)
async def test_a_key_in_another_header_is_none(house: House, header: bytes) -> None:
    key, _ = await house.key()

    response = await house.ask(SERVICE, header + key)

    assert (response.error_code, unseen(house)) == (b"missing_api_key", True)


async def test_a_header_that_is_folded_hides_nothing(house: House) -> None:
    key, _ = await house.key()

    response = await house.ask(ADMIN, b"Authorization: Bearer\r\n " + key)

    assert (response.status, unseen(house)) == (400, True)


@pytest.mark.parametrize("second", [b"Authorization: Bearer ", b"AUTHORIZATION: bearer ", b"X-API-KEY: "])
async def test_of_two_keys_the_better_one_does_not_win(house: House, second: bytes) -> None:
    inference, _ = await house.key()
    admin, _ = await house.key(Scope.ADMIN)
    await house.security.keys.revoke((await house.key(Scope.ADMIN))[1].id)

    for first, other in ((inference, admin), (admin, WRONG), (admin, inference)):
        response = await house.ask(ADMIN, bearer(first), second + other)

        assert response.error_code == b"invalid_api_key"
    assert unseen(house)


@pytest.mark.threat("a backend", "clients' keys")
async def test_a_key_sent_in_two_headers_is_removed_from_both(house: House) -> None:
    key, _ = await house.key()

    response = await house.ask(SERVICE, bearer(key), b"X-Api-Key: " + key, b"api-key: " + key)

    assert response.status == 200
    (request,) = house.rig.backend.requests
    assert key not in b"".join(value for _, value in request.headers)


@pytest.mark.threat("a backend", "clients' keys")
@pytest.mark.parametrize("named", [b"authorization", b"Authorization, Host", b"AUTHORIZATION,close"])
async def test_a_key_header_named_in_connection_is_neither_hidden_nor_leaked(
    house: House, named: bytes
) -> None:
    key, _ = await house.key()

    good = await house.ask(SERVICE, b"Connection: " + named, bearer(key))
    wrong = await house.ask(SERVICE, b"Connection: " + named, bearer(WRONG))
    admin = await house.ask(ADMIN, b"Connection: " + named, bearer(key))

    assert [good.status, wrong.status, admin.status] == [200, 401, 403]
    (request,) = house.rig.backend.requests
    assert key not in b"".join(value for _, value in request.headers)


SPOOFS = [b"X-AI-Proxy-Principal: owner", b"x-ai-proxy-principal: owner", b"X-AI-PROXY-CLIENT: local"]


@pytest.mark.threat("somebody on the network", "another client's identity")
@pytest.mark.parametrize("connection", [b"A: b", b"Connection: x-ai-proxy-principal, x-ai-proxy-client"])
async def test_only_the_gateway_sets_the_principal(house: House, connection: bytes) -> None:
    plain, key = await house.key(Scope.ADMIN, Scope.INFERENCE)

    for target in (ADMIN, ADMIN, SERVICE):
        await house.ask(target, bearer(plain), *SPOOFS, connection)

    for request in house.rig.management.requests:
        assert request.all(b"x-ai-proxy-principal") == [key.id.encode()]
        assert request.all(b"x-ai-proxy-client") == [b"127.0.0.1"]
    (request,) = house.rig.backend.requests
    assert request.header(b"x-ai-proxy-principal") is request.header(b"x-ai-proxy-client") is None


@pytest.mark.threat("somebody on the network", "another client's identity")
async def test_trailers_bring_neither_keys_nor_names(house: House) -> None:
    plain, key = await house.key(Scope.ADMIN)
    framed = b"1\r\nx\r\n0\r\n%b\r\n\r\n"
    chunked = b"Transfer-Encoding: chunked"

    late = await house.rig.ask(build_request(ADMIN, chunked, method=b"POST") + framed % bearer(plain))
    named = build_request(ADMIN, chunked, bearer(plain), method=b"POST") + framed % SPOOFS[0]
    response = await house.rig.ask(named)

    assert (late.error_code, response.status) == (b"missing_api_key", 200)
    (request,) = house.rig.management.requests
    assert request.all(b"x-ai-proxy-principal") == [key.id.encode()]


REFUSED_WITH_A_BODY = {
    "a length": (build_request(SERVICE, b"Content-Length: %d" % len(SMUGGLED), method=b"POST"), SMUGGLED),
    "a large length": (build_request(SERVICE, b"Content-Length: 999999", method=b"POST"), SMUGGLED),
    "a large length of JSON": (
        build_request(SERVICE, b"Content-Type: application/json", b"Content-Length: 999999", method=b"POST"),
        SMUGGLED * 3,
    ),
    "chunks": (
        build_request(SERVICE, b"Transfer-Encoding: chunked", method=b"POST"),
        b"%x\r\n%b\r\n" % (len(SMUGGLED), SMUGGLED),
    ),
    "a 100 to wait for": (
        build_request(
            SERVICE, b"Expect: 100-continue", b"Content-Length: %d" % len(SMUGGLED), method=b"POST"
        ),
        SMUGGLED,
    ),
    "another protocol": (build_request(SERVICE, b"Connection: Upgrade", b"Upgrade: websocket"), SMUGGLED),
    "HTTP/2 in plain": (
        build_request(
            SERVICE,
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"Content-Length: %d" % len(SMUGGLED),
            method=b"POST",
        ),
        SMUGGLED,
    ),
    "a length in HTTP/1.0": (
        b"POST %b HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 999\r\n\r\n" % SERVICE,
        SMUGGLED,
    ),
}


@pytest.mark.threat("somebody on the network", "request smuggling")
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("head", "body"), REFUSED_WITH_A_BODY.values(), ids=REFUSED_WITH_A_BODY)
async def test_the_body_of_a_refused_request_is_never_a_request(
    house: House, head: bytes, body: bytes, *, together: bool
) -> None:
    await house.key()
    client = await house.rig.client()

    await client.send(head + body if together else head)
    if not together:
        await client.send(body)
    client.writer.write_eof()
    said = await client.until_closed()

    assert said.count(b"HTTP/1.1 ") == 1, said
    assert said.startswith(b"HTTP/1.1 401 ")
    assert unseen(house)


async def test_what_comes_behind_a_refused_body_is_a_request_and_refused_as_well(house: House) -> None:
    plain, _ = await house.key()
    client = await house.rig.client()

    await client.send(
        build_request(SERVICE, body=SMUGGLED) + SMUGGLED + build_request(SERVICE, bearer(plain))
    )

    assert [(await client.response()).status for _ in range(3)] == [401, 401, 200]
    assert len(house.rig.backend.requests) == 1
    assert house.rig.management.requests == []


@pytest.mark.threat("somebody on the network", "request smuggling")
async def test_the_key_of_one_request_is_not_that_of_the_next(house: House) -> None:
    admin, _ = await house.key(Scope.ADMIN, Scope.INFERENCE)
    other, _ = await house.key()
    client = await house.rig.client()
    heads = [(bearer(admin),), (), (bearer(other),), (bearer(admin),), (), ()]

    await client.send(b"".join(build_request(ADMIN, *head) for head in heads))
    pipelined = [(await client.response()).status for _ in heads]
    one_by_one = [(await client.ask(build_request(ADMIN, *head))).status for head in heads * 2]

    assert pipelined == [200, 401, 403, 200, 401, 401]
    assert one_by_one == pipelined * 2


@pytest.mark.threat("somebody on the network", "access without a key")
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"DELETE", b"PROPFIND"])
@pytest.mark.parametrize("target", [SERVICE, ADMIN, b"/v1/models", b"/v1/chat/completions"])
async def test_every_method_needs_a_key(house: House, method: bytes, target: bytes) -> None:
    await house.key()
    client = await house.rig.client()

    await client.send(build_request(target, method=method))

    assert (await client.response(method)).status == 401
    assert unseen(house)
    (entry,) = await house.audit()
    assert entry.what == f"{method.decode()} {target.decode()}"


@pytest.mark.threat("an ordinary key", "a service's API key")
async def test_trace_does_not_show_what_the_proxy_adds_for_a_backend(house: House) -> None:
    key, _ = await house.key(Scope.INFERENCE, Scope.ADMIN)

    responses = [await house.ask(target, bearer(key), method=b"TRACE") for target in (SERVICE, ADMIN)]

    assert [response.error_code for response in responses] == [b"forbidden"] * 2
    assert unseen(house)
    assert [entry.what for entry in await house.audit()] == [f"TRACE {t.decode()}" for t in (SERVICE, ADMIN)]


@pytest.mark.threat("somebody on the network", "access without a key")
@pytest.mark.parametrize("connection", [b"A: b", b"Connection: keep-alive"])
async def test_http_1_0_needs_a_key_like_any_other(house: House, connection: bytes) -> None:
    key, _ = await house.key()
    client = await house.rig.client()
    head = b"GET %b HTTP/1.0\r\n%b\r\n"

    await client.send(head % (SERVICE, connection) + b"\r\n" + SMUGGLED)
    refused = await client.until_closed()
    served = await house.rig.ask(head % (SERVICE, bearer(key)) + b"\r\n")

    assert refused.count(b"HTTP/1.1 ") == 1
    assert b" 401 " in refused
    assert served.status == 200


async def test_a_key_in_the_query_or_path_is_none_and_is_kept_nowhere(house: House) -> None:
    plain, key = await house.key()
    log = io.StringIO()
    sink = logger.add(log, level=0)

    try:
        for target in (
            b"/service/svc/x?api_key=%b",
            b"/service/svc/%b",
            b"/api/v1/%b?key=%b" % (plain, b"%b"),
        ):
            response = await house.ask(target % plain, b"X-Api-Key: " + WRONG)
            assert response.error_code == b"invalid_api_key"
            response = await house.ask(target % plain)
            assert response.error_code == b"missing_api_key"
    finally:
        logger.remove(sink)

    secret = plain.decode()[17:]
    entries = await house.audit()
    assert len(entries) == 6
    assert secret not in str(entries)
    assert f"GET /service/svc/aip_{key.id}_..." in {entry.what for entry in entries}
    assert secret not in log.getvalue()
    assert secret not in str([vars(house.rig.recorder)])


@pytest.mark.threat("an ordinary key", "a key in logs or records")
async def test_a_key_in_an_unexpected_place_is_never_recorded(house: House) -> None:
    house.rig.gateway.publish([offer(listed=("m",))])
    plain, _ = await house.key()
    encoded = plain.replace(b"_", b"%5f")
    login = base64.b64encode(b"me:" + plain)
    log = io.StringIO()
    sink = logger.add(log, level=0)
    elsewhere = (b"Authorization: Basic " + login, b"Cookie: key=" + plain)

    try:
        for target in (b"/service/svc/x?api_key=%b&key=%b" % (plain, encoded), b"/service/svc/%b" % encoded):
            for headers in ((), (*elsewhere, b"X-Api-Key: " + plain), elsewhere):
                await house.ask(target, *headers)
        chat = await house.ask(
            CHAT + b"?key=" + plain, JSON, b"X-Api-Key: " + plain, *elsewhere[1:], body=b'{"model":"m"}'
        )
    finally:
        logger.remove(sink)

    await house.rig.recorder.recorded()
    assert chat.status == 200
    assert house.rig.backend.requests[0].target.endswith(b"?api_key=%b&key=%b" % (plain, encoded))
    recorded = log.getvalue() + str(await house.audit()) + str(vars(house.rig.recorder))
    assert plain.decode()[17:] not in recorded
    assert login.decode() not in recorded


@pytest.mark.parametrize("length", [MAX_PRESENTED - 4, MAX_PRESENTED + 1, 10_000, 60_000])
async def test_a_key_may_be_as_long_as_a_head_and_is_still_wrong(house: House, length: int) -> None:
    await house.key()

    response = await house.ask(SERVICE, bearer(b"aip_" + b"x" * length))

    assert response.error_code == b"invalid_api_key"


@pytest.mark.threat("somebody on the network", "exhaustion of memory or connections")
async def test_a_key_of_a_megabyte_is_not_even_read(house: House) -> None:
    await house.key()
    client = await house.rig.client()

    await client.send(build_request(SERVICE, bearer(b"aip_" + b"x" * 1_000_000)))

    assert (await client.response()).status == 431
    assert unseen(house)


@pytest.mark.threat("somebody on the network", "a key by guessing")
async def test_keys_are_looked_up_by_digest_so_that_a_matching_prefix_reveals_nothing(house: House) -> None:
    """What a look-up compares is nothing that a client can come nearer to, byte by byte."""
    plain, key = await house.key()
    ring: KeyRing = house.security.keys

    assert list(ring._by_digest) == [key.digest]
    assert plain not in ring._by_digest
    for near in (plain[:-1], plain + b"0", plain[:-1] + b"~", plain.swapcase()):
        assert ring.find(near) is None
    assert ring.find(plain) is not None


@pytest.mark.threat("somebody on the network", "access without a key")
async def test_ollamas_listener_asks_for_keys_as_well(house: House) -> None:
    inference, _ = await house.key()
    admin, _ = await house.key(Scope.ADMIN)
    port = await house.ollama()

    async def status(target: bytes, *headers: bytes) -> int:
        client = await house.rig.client(port)
        return (await client.ask(build_request(target, *headers))).status

    for target in (b"/", b"/api/tags", b"/v1/models", b"/health", b"/api/pull"):
        assert await status(target) == 401
        assert await status(target, bearer(admin)) == 403
    assert await status(b"/api/tags", bearer(inference)) == 200
    for target in (ADMIN, b"/metrics", b"/docs", b"/service/svc/x", b"/ollama/api/tags", b"//api/tags"):
        assert await status(target, bearer(inference)) == 404
    assert {request.target for request in house.rig.management.requests} == {b"/ollama/api/tags"}


@pytest.mark.threat("a limited key", "a service named like its model")
async def test_a_key_for_a_model_does_not_reach_a_service_of_the_same_name(house: House) -> None:
    models, _ = await house.key(models=frozenset({"s*"}))
    named, _ = await house.key(models=frozenset({"svc"}))

    assert (await house.ask(SERVICE, bearer(models))).error_code == b"forbidden"
    assert (await house.ask(SERVICE, bearer(named))).status == 200


@pytest.mark.threat("somebody on the network", "access without a key")
async def test_a_tunnel_needs_a_key_and_ends_with_it(house: House) -> None:
    plain, key = await house.key()
    house.rig.backend.script = by_hand
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket")
    refused = await house.ask(SERVICE, *upgrade)
    client = await house.rig.client()
    await client.send(build_request(SERVICE, *upgrade, bearer(plain)))
    backend = await house.rig.backend.connection()
    head = await backend.until(b"\r\n\r\n")
    await backend.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    await client.until(b"\r\n\r\n")
    await client.send(b"said in it")
    await backend.until(b"said in it")

    await house.security.keys.revoke(key.id)

    assert refused.status == 401
    assert plain not in head
    assert await client.until_closed() == b""
    assert await backend.until_closed() == b""
