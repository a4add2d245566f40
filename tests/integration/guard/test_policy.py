"""The policy holds on every path: allowlist, pages of other origins, limits, sizes."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway.models import CHAT, CHUNKED, DONE, EVENT, PLAIN, USAGE, ask, chunk, offer
from tests.integration.guard.conftest import House, bearer, guarded
from tests.rigs.raw_backend import answer, by_hand, ok
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import eventually

from ai_proxy.core.keys import Scope
from ai_proxy.core.limits import UNSAID, Allowance

PATHS = [
    b"/service/svc/x",
    b"/v1/models",
    b"/api/v1/services",
    b"/docs",
    b"/metrics",
    b"/health",
    b"/nowhere",
]
EVIL = b"Origin: https://evil.example"


@pytest.mark.threat("somebody on the network", "access from an address that is not allowed")
@pytest.mark.parametrize("path", PATHS)
async def test_an_address_outside_the_allowlist_is_refused(house: House, path: bytes) -> None:
    await house.policy(allowlist=["10.0.0.0/8"])

    response = await house.ask(path)

    assert (response.status, response.error_code) == (403, b"address_refused")
    (entry,) = await house.audit()
    assert (entry.where_from, entry.result) == ("127.0.0.1", "address_refused")


async def test_the_allowlist_changes_for_a_connection_that_is_open(house: House) -> None:
    client = await house.rig.client()
    assert [(await client.ask(build_request())).status for _ in range(3)] == [200, 200, 200]

    await house.policy(allowlist=["10.0.0.0/8"])

    assert (await client.ask(build_request())).status == 403


async def test_only_a_trusted_proxy_says_who_calls(house: House) -> None:
    await house.policy(allowlist=["10.0.0.0/8"])
    spoofed = await house.ask(b"/service/svc/x", b"X-Forwarded-For: 10.1.2.3")
    await house.policy(allowlist=["10.0.0.0/8"], trusted_proxies=["127.0.0.1"])

    forwarded = await house.ask(b"/service/svc/x", b"X-Forwarded-For: 10.1.2.3")
    lying = await house.ask(b"/service/svc/x", b"X-Forwarded-For: 10.1.2.3, 192.0.2.9")

    assert [spoofed.status, forwarded.status, lying.status] == [403, 200, 403]


@pytest.mark.threat("a web page", "access to this machine through a visitor's browser")
async def test_a_page_of_another_origin_cannot_use_its_visitors_machine(house: House) -> None:
    refused = [
        await house.ask(b"/service/svc/x", EVIL),
        await house.ask(b"/service/svc/x", b"Origin: null"),
        await house.ask(b"/service/svc/x", b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: no-cors"),
    ]
    followed = await house.ask(b"/docs", b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: navigate")

    assert [response.error_code for response in refused] == [b"origin_refused"] * 3
    assert followed.status == 200
    assert house.rig.backend.requests == []


async def test_a_name_that_a_page_has_pointed_here_is_refused(tmp_path: Path) -> None:
    async with guarded(tmp_path) as house:
        client = await house.rig.client()
        refused = await client.ask(b"GET /service/svc/x HTTP/1.1\r\nHost: evil.example:11000\r\n\r\n")
        served = await client.ask(b"GET /service/svc/x HTTP/1.1\r\nHost: localhost:11000\r\n\r\n")

    assert (refused.error_code, served.status) == (b"host_refused", 200)


async def test_with_a_key_any_name_will_do(house: House) -> None:
    key, _ = await house.key()
    client = await house.rig.client()

    response = await client.ask(b"GET /service/svc/x HTTP/1.1\r\nHost: gpu.lan\r\n%b\r\n\r\n" % bearer(key))

    assert response.status == 200


async def test_a_browser_that_asks_first_is_answered_without_a_key_and_without_a_backend(
    house: House,
) -> None:
    await house.key()
    await house.policy(cors={"origins": ["https://chat.example"]})
    wish = (b"Access-Control-Request-Method: POST", b"Access-Control-Request-Headers: authorization, x-y")

    response = await house.ask(CHAT, b"Origin: https://chat.example", *wish, method=b"OPTIONS")

    assert response.status == 204
    assert response.header(b"access-control-allow-origin") == b"https://chat.example"
    assert response.header(b"access-control-allow-headers") == b"authorization, x-y"
    assert response.header(b"x-request-id")
    assert house.rig.backend.requests == house.rig.management.requests == []


async def test_a_page_that_the_policy_does_not_name_is_told_no(house: House) -> None:
    await house.policy(cors={"origins": ["https://chat.example"]})

    response = await house.ask(CHAT, EVIL, b"Access-Control-Request-Method: POST", method=b"OPTIONS")

    assert (response.status, response.error_code) == (403, b"origin_refused")
    assert response.header(b"access-control-allow-origin") is None


async def test_after_its_preflight_the_connection_goes_on(house: House) -> None:
    await house.policy(cors={"origins": ["https://chat.example"]})
    client = await house.rig.client()
    page = b"Origin: https://chat.example"

    await client.ask(
        build_request(b"/service/svc/x", page, b"Access-Control-Request-Method: PUT", method=b"OPTIONS")
    )
    response = await client.ask(build_request(b"/service/svc/x", page))

    assert response.header(b"access-control-allow-origin") == b"https://chat.example"


@pytest.mark.threat("a web page", "responses that the policy denies it")
async def test_cors_headers_of_a_backend_are_replaced_by_those_of_the_policy(house: House) -> None:
    await house.policy(cors={"origins": ["https://chat.example"]})
    house.rig.backend.script = answer(ok(b"x", b"Access-Control-Allow-Origin: *", b"A: b"))
    client = await house.rig.client()

    for _ in range(3):
        response = await client.ask(build_request(b"/service/svc/x", b"Origin: https://chat.example"))

        assert response.all(b"access-control-allow-origin") == [b"https://chat.example"]
        assert response.header(b"a") == b"b"


async def test_an_error_tells_a_page_that_may_call_what_it_is(house: House) -> None:
    await house.policy(cors={"origins": ["https://chat.example"]})

    response = await house.ask(b"/service/none/x", b"Origin: https://chat.example")

    assert response.status == 404
    assert response.header(b"access-control-allow-origin") == b"https://chat.example"


async def test_too_many_requests_are_told_when_to_come_again_whatever_the_connection(house: House) -> None:
    await house.policy(per_ip={"rpm": 60, "burst": 3})
    client = await house.rig.client()

    first = [(await client.ask(build_request())).status for _ in range(3)]
    refused, elsewhere = await client.ask(build_request()), await house.ask()

    assert first == [200, 200, 200]
    assert (refused.status, refused.error_code) == (429, b"rate_limited")
    assert refused.header(b"retry-after") == b"1" or refused.header(b"retry-after") == b"2"
    assert refused.header(b"x-ratelimit-limit-requests") == b"3"
    assert refused.header(b"x-ratelimit-remaining-requests") == b"0"
    assert elsewhere.status == 429
    assert {entry.result for entry in await house.audit()} == {"rate_limited"}


@pytest.mark.threat("a limited key", "more requests than its limit")
async def test_pipelining_does_not_get_around_a_limit(house: House) -> None:
    await house.policy(per_ip={"rpm": 60, "burst": 3})
    client = await house.rig.client()

    await client.send(build_request() * 5)

    assert [(await client.response()).status for _ in range(5)] == [200, 200, 200, 429, 429]


@pytest.mark.threat("somebody on the network", "a key by guessing")
async def test_wrong_keys_count_for_the_address_they_come_from(house: House) -> None:
    await house.key()
    await house.policy(per_ip={"rpm": 60, "burst": 2})

    statuses = [(await house.ask(b"/v1/models", bearer(b"aip_wrong"))).status for _ in range(4)]

    assert statuses == [401, 401, 429, 429]


async def test_a_place_is_free_again_when_its_request_is_over_or_its_client_gone(house: House) -> None:
    plain, _ = await house.key(allowance=Allowance(concurrency=1))
    house.rig.backend.script = by_hand
    leaving = await house.rig.client()
    await leaving.send(build_request(b"/service/svc/x", bearer(plain)))
    await house.rig.backend.connection()
    busy = await house.ask(b"/service/svc/x", bearer(plain))
    leaving.reset()
    house.rig.backend.script = answer(ok(b"x"))

    await eventually(lambda: len(house.rig.admission.outcomes) == 1)
    after = await house.ask(b"/service/svc/x", bearer(plain))

    assert (busy.status, after.status) == (429, 200)


@pytest.mark.threat("a limited key", "more tokens than its limit")
async def test_tokens_over_the_limit_delay_the_next_request(house: House) -> None:
    plain, _ = await house.key(allowance=Allowance(tpm=9))
    house.rig.gateway.publish([offer()])
    house.rig.backend.script = answer(ok(USAGE, b"content-type: application/json"))
    request = ask(model="svc").replace(b"Host: test", b"Host: test\r\n" + bearer(plain))

    first, second = await house.rig.ask(request), await house.rig.ask(request)

    assert (first.status, second.status) == (200, 429)
    assert b"9 tokens per minute" in second.body


@pytest.mark.threat("a limited key", "more tokens than its limit")
@pytest.mark.parametrize("streamed", [True, False])
async def test_tokens_count_by_path_as_well(house: House, *, streamed: bool) -> None:
    plain, _ = await house.key(allowance=Allowance(tpm=9))
    last = CHUNKED + chunk(EVENT) + chunk(b"data: " + USAGE + b"\n\n") + DONE
    house.rig.backend.script = answer(last if streamed else ok(USAGE, b"content-type: application/json"))
    client = await house.rig.client()
    request = build_request(b"/service/svc/v1/chat/completions", bearer(plain))

    first, second = await client.ask(request), await client.ask(request)

    assert (first.status, second.status) == (200, 429)
    assert b"9 tokens per minute" in second.body


@pytest.mark.threat("a limited key", "more tokens than its limit")
@pytest.mark.parametrize("path", [b"/service/svc/v1/chat/completions", b"/v1/chat/completions"])
async def test_unreported_tokens_are_estimated_from_the_bytes(house: House, path: bytes) -> None:
    plain, _ = await house.key(allowance=Allowance(tpm=100))
    house.rig.gateway.publish([offer()])
    house.rig.backend.script = answer(CHUNKED + chunk(EVENT) + DONE)
    request = ask(path=path, model="svc", stream=True, messages=[{"role": "user", "content": "x" * 2000}])
    request = request.replace(b"Host: test", b"Host: test\r\n" + bearer(plain))

    first, second = await house.rig.ask(request), await house.rig.ask(request)

    assert (first.status, second.status) == (200, 429)


@pytest.mark.threat("a limited key", "more tokens than its limit")
async def test_a_backend_is_asked_for_uncompressed_responses_where_tokens_are_limited(house: House) -> None:
    limited, _ = await house.key(allowance=Allowance(tpm=9))
    free, _ = await house.key()

    for plain in (limited, free):
        await house.rig.ask(build_request(b"/service/svc/x", bearer(plain), b"Accept-Encoding: gzip"))

    first, second = house.rig.backend.requests
    assert (first.header(b"accept-encoding"), second.header(b"accept-encoding")) == (None, b"gzip")


LAST_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":900,"completion_tokens":3}}\n\n'


@pytest.mark.threat("a limited key", "more tokens than its limit")
@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False, "x": 1}}])
async def test_usage_is_requested_from_the_engine_and_stripped_for_the_client(
    house: House, options: dict[str, Any]
) -> None:
    plain, _ = await house.key(allowance=Allowance(tpm=100))
    house.rig.gateway.publish([offer()])
    house.rig.backend.script = answer(CHUNKED + chunk(EVENT) + chunk(EVENT + LAST_USAGE) + DONE)
    request = ask(model="svc", stream=True, **options)
    request = request.replace(b"Host: test", b"Host: test\r\n" + bearer(plain))

    first, second = await house.rig.ask(request), await house.rig.ask(request)

    (asked,) = house.rig.backend.requests
    told = json.loads(asked.body)["stream_options"]
    assert told == {**options.get("stream_options", {}), "include_usage": True}
    assert first.body == EVENT * 2 + b"data: [DONE]\n\n"
    assert (first.status, second.status) == (200, 429)


@pytest.mark.parametrize("limited", [True, False])
async def test_a_client_that_asks_for_the_usage_of_a_stream_gets_it(house: House, *, limited: bool) -> None:
    plain, _ = await house.key(allowance=Allowance(tpm=100) if limited else UNSAID)
    house.rig.gateway.publish([offer()])
    house.rig.backend.script = answer(CHUNKED + chunk(EVENT) + chunk(LAST_USAGE) + DONE)
    request = ask(model="svc", stream=True, stream_options={"include_usage": True})

    response = await house.rig.ask(request.replace(b"Host: test", b"Host: test\r\n" + bearer(plain)))

    assert response.body == EVENT + LAST_USAGE + b"data: [DONE]\n\n"


async def test_a_request_that_no_backend_answered_costs_no_tokens_and_no_place(house: House) -> None:
    plain, _ = await house.key(allowance=Allowance(tpm=9, concurrency=1))
    await house.rig.backend.stop()
    client = await house.rig.client()
    request = build_request(b"/service/svc/x", bearer(plain))

    responses = [await client.ask(request) for _ in range(3)]

    assert [one.error_code for one in responses] == [b"upstream_connect_failed"] * 3


@pytest.mark.parametrize("path", [b"/service/svc/v1/chat/completions", b"/v1/chat/completions"])
async def test_an_absurd_number_of_tokens_is_a_debt_and_breaks_nothing(house: House, path: bytes) -> None:
    plain, _ = await house.key(allowance=Allowance(tpm=9))
    house.rig.gateway.publish([offer()])
    absurd = USAGE.replace(b'"prompt_tokens":', b'"prompt_tokens":' + b"9" * 400)
    house.rig.backend.script = answer(ok(absurd, b"content-type: application/json"))
    client = await house.rig.client()
    request = ask(path=path, model="svc").replace(b"Host: test", b"Host: test\r\n" + bearer(plain))

    first, second = await client.ask(request), await client.ask(request)

    assert (first.status, second.status) == (200, 429)


@pytest.mark.threat("a limited key", "another model's answers")
async def test_a_key_reaches_only_its_own_models_by_any_name(house: House) -> None:
    plain, _ = await house.key(models=frozenset({"mine*"}))
    house.rig.gateway.publish([offer("svc", PLAIN, models=("mine-7b", "other"))])

    async def status(model: str) -> int:
        head = b"Host: test\r\n" + bearer(plain)
        return (await house.rig.ask(ask(model=model).replace(b"Host: test", head))).status

    assert [await status(name) for name in ("mine-7b", "svc/mine-7b", "other", "svc/other")] == [
        200,
        200,
        403,
        403,
    ]
    assert [entry.result for entry in await house.audit()] == ["forbidden"]


@pytest.mark.threat("a limited key", "a body over the size limit")
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_over_the_policys_size_is_refused(house: House, *, chunked: bool) -> None:
    await house.policy(max_request_mb=1)
    body = b"x" * (1024 * 1024 + 1)
    client = await house.rig.client()
    if chunked:
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        await client.send(
            build_request(b"/service/svc/x", b"Transfer-Encoding: chunked", method=b"POST") + framed
        )
    else:
        await client.send(build_request(b"/service/svc/x", body=body))

    response = await client.response()

    assert (response.status, response.error_code) == (413, b"body_too_large")


async def test_everything_but_the_keys_scope_is_as_the_policy_says_for_admins_too(house: House) -> None:
    admin, _ = await house.key(Scope.ADMIN)
    await house.policy(allowlist=["10.0.0.0/8"])

    assert (await house.ask(b"/api/v1/services", bearer(admin))).error_code == b"address_refused"
