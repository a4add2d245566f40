"""Who has a key gets through, and no backend ever sees it."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.integration.gateway.models import CHAT, JSON, offer
from tests.integration.guard.conftest import House, bearer, guarded
from tests.rigs.raw_backend import by_hand
from tests.rigs.raw_http import build_request

from ai_proxy.core.errors import ServiceFailedError
from ai_proxy.core.keys import Scope
from ai_proxy.core.settings import SecuritySettings

MANAGEMENT = [b"/api/v1/services", b"/docs", b"/redoc", b"/openapi.json", b"/metrics", b"/console", b"/"]


async def test_without_any_key_whoever_is_on_this_machine_may_call(house: House) -> None:
    assert (await house.ask()).status == 200
    assert (await house.ask(b"/api/v1/services")).status == 200


@pytest.mark.threat("somebody on the network", "access without a key")
async def test_other_machines_need_a_key_even_before_there_is_one(tmp_path: Path) -> None:
    async with guarded(tmp_path, exposed=True) as house:
        response = await house.ask()

    assert (response.status, response.error_code) == (401, b"missing_api_key")


async def test_they_do_not_where_the_owner_says_so(tmp_path: Path) -> None:
    settings = SecuritySettings(allow_unauthenticated=True)
    async with guarded(tmp_path, settings, exposed=True) as house:
        response = await house.ask()

    assert response.status == 200


@pytest.mark.threat("somebody on the network", "access without a key")
async def test_once_there_is_a_key_one_is_needed(house: House) -> None:
    key, _ = await house.key()

    without, with_it = await house.ask(), await house.ask(b"/service/svc/x", bearer(key))

    assert (without.status, without.error_code) == (401, b"missing_api_key")
    assert without.header(b"www-authenticate") == b'Bearer realm="ai-proxy"'
    assert with_it.status == 200


@pytest.mark.parametrize(
    "name", [b"X-Api-Key: ", b"api-key: ", b"AUTHORIZATION: bearer ", b"authorization: Bearer\t"]
)
async def test_a_key_is_taken_from_each_header_that_may_carry_one(house: House, name: bytes) -> None:
    key, _ = await house.key()

    response = await house.ask(b"/service/svc/x", name + key)

    assert response.status == 200
    assert key not in b"".join(value for _, value in house.rig.backend.requests[0].headers)


@pytest.mark.threat("an ordinary key", "a spoofed client address at a backend")
async def test_only_the_proxy_tells_the_backend_of_a_model_where_a_request_comes_from(
    house: House,
) -> None:
    house.rig.gateway.publish([offer(listed=("m",))])
    key, _ = await house.key()
    claims = [b"X-Forwarded-For: 10.0.0.1", b"Forwarded: for=10.0.0.1", b"X-Real-IP: 10.0.0.1"]

    await house.ask(CHAT, bearer(key), JSON, *claims, body=b'{"model":"m"}')
    await house.ask(CHAT, bearer(key), JSON, body=b'{"model":"m"}')

    told, untold = (
        [v for n, v in sent.headers if b"forwarded" in n or b"real" in n]
        for sent in house.rig.backend.requests
    )
    assert (told, untold) == ([b"127.0.0.1"], [])


@pytest.mark.threat("an ordinary key", "a spoofed client address at a backend")
async def test_what_a_trusted_proxy_says_of_that_is_passed_on(house: House) -> None:
    house.rig.gateway.publish([offer(listed=("m",))])
    await house.policy(trusted_proxies=["127.0.0.0/8"])
    key, _ = await house.key()

    await house.ask(CHAT, bearer(key), JSON, b"X-Forwarded-For: 192.0.2.7", body=b'{"model":"m"}')

    assert (b"x-forwarded-for", b"192.0.2.7") in house.rig.backend.requests[0].headers


@pytest.mark.threat("an ordinary key", "a key in logs or records")
async def test_a_key_in_place_of_a_model_or_a_request_id_is_never_recorded(house: House) -> None:
    house.rig.gateway.publish([offer(listed=("m",))])
    key, _ = await house.key()

    response = await house.ask(
        CHAT, bearer(key), JSON, b"X-Request-ID: " + key, body=b'{"model":"svc/%b"}' % key
    )

    await house.rig.recorder.recorded()
    assert response.status == 404
    assert key not in (response.header(b"x-request-id") or b"")
    assert key.decode()[-40:] not in repr(house.rig.recorder.inferences)


async def test_what_else_is_in_such_a_header_is_the_backends(house: House) -> None:
    key, _ = await house.key()

    await house.ask(b"/service/svc/x", b"X-Api-Key: " + key, b"Authorization: Bearer sk-of-the-backend")

    (request,) = house.rig.backend.requests
    assert request.header(b"authorization") == b"Bearer sk-of-the-backend"
    assert request.header(b"x-api-key") is None


@pytest.mark.threat("a backend", "clients' keys")
async def test_repeated_requests_never_forward_the_key(house: House) -> None:
    key, _ = await house.key()
    client = await house.rig.client()

    for _ in range(4):
        assert (await client.ask(build_request(b"/service/svc/x", bearer(key)))).status == 200

    assert [request.header(b"authorization") for request in house.rig.backend.requests] == [None] * 4


async def test_a_wrong_key_is_refused_and_written_down_without_it(house: House) -> None:
    await house.key()
    wrong = b"aip_0123456789ab_" + b"x" * 49

    response = await house.ask(b"/service/svc/secret?token=1", bearer(wrong))

    assert (response.status, response.error_code) == (401, b"invalid_api_key")
    (entry,) = await house.audit()
    assert (entry.who, entry.what, entry.where_from, entry.result) == (
        "anonymous",
        "GET /service/svc/secret",
        "127.0.0.1",
        "invalid_api_key",
    )
    assert wrong[20:].decode() not in str(entry)


async def test_two_different_keys_are_one_too_many(house: House) -> None:
    first, _ = await house.key()
    second, _ = await house.key()

    response = await house.ask(b"/service/svc/x", bearer(first), b"X-Api-Key: " + second)

    assert response.error_code == b"invalid_api_key"


@pytest.mark.threat("an ordinary key", "access after its revocation")
async def test_a_revoked_key_stops_at_once_on_a_connection_that_used_it(house: House) -> None:
    plain, key = await house.key()
    client = await house.rig.client()
    request = build_request(b"/service/svc/x", bearer(plain))
    assert [(await client.ask(request)).status for _ in range(3)] == [200, 200, 200]

    await house.security.keys.revoke(key.id)

    assert (await client.ask(request)).error_code == b"invalid_api_key"


@pytest.mark.threat("an ordinary key", "access after its revocation")
async def test_a_revoked_key_loses_the_stream_it_has_begun(house: House) -> None:
    plain, key = await house.key()
    house.rig.backend.script = by_hand
    client = await house.rig.client()
    await client.send(build_request(b"/service/svc/x", bearer(plain)))
    backend = await house.rig.backend.connection()
    await backend.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun")
    await client.until(b"begun")

    await house.security.keys.revoke(key.id)

    assert await client.until_closed() == b""
    assert await backend.until_closed() is not None


@pytest.mark.threat("an ordinary key", "a new request after its expiry")
async def test_an_expired_key_starts_no_request_and_interrupts_none(house: House) -> None:
    plain, _ = await house.key(expires=house.clock.wall() + 60)
    house.rig.backend.script = by_hand
    client = await house.rig.client()
    await client.send(build_request(b"/service/svc/x", bearer(plain)))
    backend = await house.rig.backend.connection()
    await backend.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegun")
    await client.until(b"begun")

    await house.clock.advance(61)
    await asyncio.sleep(0.1)  # several looks of the gateway, none of which may end it
    await backend.send(b"ended")
    await client.until(b"ended")

    assert (
        await client.ask(build_request(b"/service/svc/x", bearer(plain)))
    ).error_code == b"invalid_api_key"


async def test_an_upload_with_a_wrong_key_is_never_asked_for(house: House) -> None:
    await house.key()
    client = await house.rig.client()

    await client.send(
        build_request(b"/service/svc/x", b"Expect: 100-continue", b"Content-Length: 9", method=b"POST")
    )

    assert (await client.response(b"POST")).status == 401


@pytest.mark.threat("an ordinary key", "management of the proxy")
@pytest.mark.parametrize("path", MANAGEMENT)
async def test_management_needs_the_admin_scope(house: House, path: bytes) -> None:
    inference, _ = await house.key()
    admin, _ = await house.key(Scope.ADMIN)

    refused, served = await house.ask(path, bearer(inference)), await house.ask(path, bearer(admin))

    assert (refused.status, refused.error_code) == (403, b"forbidden")
    assert served.status == 200


@pytest.mark.parametrize("path", [b"/health", b"/ready"])
async def test_whether_the_proxy_lives_may_be_asked_by_everybody(house: House, path: bytes) -> None:
    await house.key()

    assert (await house.ask(path)).status == 200


async def test_asking_models_takes_a_key_for_that(house: House) -> None:
    admin, _ = await house.key(Scope.ADMIN)

    assert (await house.ask(b"/v1/models", bearer(admin))).status == 403
    assert (await house.ask(b"/service/svc/x", bearer(admin))).status == 403


async def test_the_management_app_hears_who_calls_and_from_where_from_us_alone(house: House) -> None:
    plain, key = await house.key(Scope.ADMIN)

    await house.ask(
        b"/api/v1/services", bearer(plain), b"X-AI-Proxy-Principal: owner", b"x-ai-proxy-client: 1.2.3.4"
    )

    (request,) = house.rig.management.requests
    assert request.all(b"x-ai-proxy-principal") == [key.id.encode()]
    assert request.all(b"x-ai-proxy-client") == [b"127.0.0.1"]
    assert request.header(b"authorization") is None


@pytest.mark.threat("an ordinary key", "the log of a failed backend")
async def test_the_log_of_a_failed_backend_needs_the_admin_scope(house: House) -> None:
    error = ServiceFailedError("svc failed: exit code 3", log_tail=["/home/alice/secret.gguf: not found"])
    house.rig.admission.refusals["svc"] = error
    ordinary, _ = await house.key()
    admin, _ = await house.key(Scope.ADMIN, Scope.INFERENCE)

    told, told_all = (
        await house.ask(b"/service/svc/x", bearer(ordinary)),
        await house.ask(b"/service/svc/x", bearer(admin)),
    )

    assert json.loads(told.body)["detail"] == "svc failed: exit code 3"
    assert b"alice" not in told.body
    assert json.loads(told_all.body)["log_tail"] == list(error.log_tail)


@pytest.mark.threat("a limited key", "a service named like its model")
async def test_a_key_for_some_models_reaches_only_their_services(house: House) -> None:
    some, _ = await house.key(models=frozenset({"other", "svc2/*"}))
    whole, _ = await house.key(models=frozenset({"svc/*"}))

    assert (await house.ask(b"/service/svc/x", bearer(some))).error_code == b"forbidden"
    assert (await house.ask(b"/service/svc/x", bearer(whole))).status == 200


@pytest.mark.threat("somebody on the network", "the names of services without a key")
async def test_a_request_without_a_key_does_not_learn_which_services_exist(house: House) -> None:
    await house.key()

    response = await house.ask(b"/service/svcc/x")

    assert response.status == 401
    assert b"svc'" not in response.body


async def test_a_stream_that_breaks_is_seen_to_break(house: House) -> None:
    plain, key = await house.key()
    house.rig.backend.script = by_hand
    client = await house.rig.client()
    await client.send(build_request(b"/service/svc/x", bearer(plain)))
    backend = await house.rig.backend.connection()
    await backend.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n")
    head = await client.until(b"begun\r\n")

    await house.security.keys.revoke(key.id)

    assert b"chunked" in head
    assert await client.until_closed() == b""  # and no last chunk


@pytest.mark.parametrize("path", [b"/v1/models", b"/v1/nowhere", b"/v1/chat/completions"])
async def test_under_v1_a_refusal_is_told_as_openai_tells_errors(house: House, path: bytes) -> None:
    await house.key()

    response = await house.ask(path)

    error = json.loads(response.body)["error"]
    assert (response.status, error["code"]) == (401, "missing_api_key")
    assert error["request_id"] == (response.header(b"x-request-id") or b"").decode()


async def test_under_v1_messages_it_is_told_as_anthropic_does(house: House) -> None:
    await house.key()

    response = await house.ask(b"/v1/messages")

    assert json.loads(response.body)["error"]["type"] == "authentication_error"
