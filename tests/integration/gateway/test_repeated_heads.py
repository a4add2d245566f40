"""A kept connection says the same head again and again; every message is still read for what it is."""

import asyncio

import pytest
from tests.rigs.raw_backend import BackendConnection, answer, echo, ok
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import WireRig, wire_rig

from ai_proxy.core.abilities import Abilities
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import ExternalLaunch, Service

JSON = b"Content-Type: application/json"
TARGET = b"/service/svc/x"


def post(body: bytes, *headers: bytes, target: bytes = TARGET) -> bytes:
    return build_request(target, JSON, *headers, body=body)


async def test_bodies_of_any_length_reach_the_backend_unchanged(rig: WireRig) -> None:
    client = await rig.client()
    bodies = [b"x" * length for length in (5, 5, 9, 10, 99, 100, 1000, 3, 70_000, 1)]

    for body in bodies:
        await client.ask(post(body))

    assert [request.body for request in rig.backend.requests] == bodies
    assert {request.header(b"content-length") for request in rig.backend.requests} == {
        b"%d" % len(body) for body in bodies
    }


async def test_a_repeated_head_whose_body_comes_in_pieces_is_read_whole(rig: WireRig) -> None:
    client = await rig.client()
    await client.ask(post(b"first"))
    request = post(b"second body")

    await client.send(request[:-4])
    await asyncio.sleep(0.01)
    await client.send(request[-4:])
    await client.response()

    assert rig.backend.requests[-1].body == b"second body"


async def test_two_repeated_requests_in_one_read_are_two_requests(rig: WireRig) -> None:
    client = await rig.client()
    await client.ask(post(b"first"))

    await client.send(post(b"22") + post(b"333"))
    await client.response()
    await client.response()

    assert [request.body for request in rig.backend.requests] == [b"first", b"22", b"333"]


async def test_a_lie_about_the_length_is_still_a_lie(rig: WireRig) -> None:
    client = await rig.client()
    await client.ask(post(b"12345"))

    await client.send(post(b"12345").replace(b"Content-Length: 5", b"Content-Length: 5, 5"))
    response = await client.response()

    assert response.status == 400


async def test_every_response_has_an_id_of_its_own(rig: WireRig) -> None:
    client = await rig.client()

    ids = [(await client.ask(post(b"12345"))).header(b"x-request-id") for _ in range(4)]

    assert len(set(ids)) == 4


async def test_a_client_may_switch_the_service_on_every_request() -> None:
    async with wire_rig(services=("svc", "two")) as rig:
        client = await rig.client()

        for target in (TARGET, TARGET, b"/service/two/x", b"/service/two/x", TARGET):
            await client.ask(post(b"12345", target=target))

        assert len(rig.backend.requests) == 3
        assert len(rig.backends["two"].requests) == 2


async def test_a_service_that_was_taken_away_is_not_reached_by_heart(rig: WireRig) -> None:
    client = await rig.client()
    await client.ask(post(b"12345"))
    await client.ask(post(b"12345"))

    rig.gateway.publish([])
    response = await client.ask(post(b"12345"))

    assert response.error_code == b"unknown_service"
    assert len(rig.backend.requests) == 2


async def test_new_limits_of_a_service_apply_to_a_connection_that_knows_it(rig: WireRig) -> None:
    client = await rig.client()
    await client.ask(post(b"12345"))
    upstream = rig.admission.upstreams["svc"]
    changed = Service("svc", "generic", "generic", ExternalLaunch((upstream,)), "h", response_timeout=0.05)

    async def never(connection: BackendConnection) -> None:
        await connection.until_closed()

    rig.gateway.publish([Offer(changed, Abilities("any HTTP server"))])
    rig.backend.script = never
    rig.gateway.shared.pools.sweep(0)
    response = await client.ask(post(b"12345"))

    assert response.error_code == b"upstream_timeout"


async def test_answers_of_any_length_reach_the_client_unchanged(rig: WireRig) -> None:
    bodies = [b"y" * length for length in (5, 5, 9, 10, 99, 100_000, 0, 7)]
    rig.backend.script = answer(*(ok(body) for body in bodies))
    client = await rig.client()

    answers = [(await client.ask(build_request())).body for _ in bodies]

    assert answers == bodies


async def test_a_head_request_between_repeated_answers_gets_no_body(rig: WireRig) -> None:
    head_only = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    rig.backend.script = answer(head_only + b"12345", head_only + b"12345", head_only, head_only + b"67890")
    client = await rig.client()

    first = await client.ask(build_request())
    second = await client.ask(build_request())
    await client.send(build_request(method=b"HEAD"))
    third = await client.response(b"HEAD")
    fourth = await client.ask(build_request())

    assert (first.body, second.body, third.body, fourth.body) == (b"12345", b"12345", b"", b"67890")


@pytest.mark.threat("a backend", "response smuggling")
async def test_surplus_after_a_repeated_answer_is_not_passed_on(rig: WireRig) -> None:
    plain = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345"
    rig.backend.script = answer(plain, plain + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    client = await rig.client()

    answers = [(await client.ask(build_request())).body for _ in range(2)]
    rig.backend.script = echo
    third = await client.ask(build_request())

    assert answers == [b"12345", b"12345"]
    assert b"evil" not in third.body
    assert len(rig.backend.connections) == 2


async def test_a_chunked_body_is_never_taken_for_a_part_of_a_known_head(rig: WireRig) -> None:
    body = b"123\r\n\r\n" + b"x" * 10
    head = build_request(TARGET, JSON, b"Transfer-Encoding: chunked", method=b"POST")
    start, rest = head + b"%x\r\n" % len(body) + body[:7], body[7:] + b"\r\n0\r\n\r\n"
    client = await rig.client()
    await client.send(start + rest)
    await client.response()

    await client.send(start)
    await asyncio.sleep(0.02)
    await client.send(rest)
    response = await client.response()

    assert response.status == 200
    assert [request.body for request in rig.backend.requests] == [body, body]


async def test_line_ends_after_a_request_do_not_shift_what_is_remembered(rig: WireRig) -> None:
    client = await rig.client()
    await client.send(post(b"\r\n\r\nfirst") + b"\r\n\r\n")
    await client.response()

    await client.send(post(b"\r\n\r\nother") + b"GET ")
    await client.response()

    assert [request.body for request in rig.backend.requests] == [b"\r\n\r\nfirst", b"\r\n\r\nother"]


def chat(model: bytes, *headers: bytes) -> bytes:
    return build_request(b"/v1/chat/completions", JSON, *headers, body=b'{"model":"%b"}' % model)


async def test_a_repeated_head_may_ask_for_another_model_every_time() -> None:
    async with wire_rig(services=("one", "two")) as rig:
        client = await rig.client()
        asked = [b"one", b"two", b"two", b"none", b"one", b"one/x", b"two"] * 3

        statuses = [(await client.ask(chat(model))).status for model in asked]

        assert statuses == [404 if model == b"none" else 200 for model in asked]
        assert [len(rig.backends[name].requests) for name in ("one", "two")] == [9, 9]


async def test_paths_may_alternate_between_models_services_and_the_management_app(rig: WireRig) -> None:
    client = await rig.client()
    service = build_request(b"/service/svc/v1/chat/completions", JSON, body=b'{"model":"x"}')
    requests = [chat(b"svc"), service, chat(b"svc"), build_request(b"/v1/models")] * 3

    targets = [(await client.ask(request)).body.split(b" ")[:2] for request in requests]

    post = [b"POST", b"/v1/chat/completions"]
    assert targets == [post, post, post, [b"GET", b"/v1/models"]] * 3


async def test_a_repeated_head_follows_a_model_to_where_it_is_now() -> None:
    async with wire_rig(services=("one", "two")) as rig:
        client = await rig.client()
        one, two = rig.gateway.shared.table.models.offers.values()
        for offers in ((one,), (two,), (one, two)):
            rig.gateway.publish(offers)
            for _ in range(3):
                await client.ask(chat(b"one"))

        assert [len(rig.backends[name].requests) for name in ("one", "two")] == [6, 0]


async def test_every_repeated_request_has_an_id_of_its_own_or_the_clients(rig: WireRig) -> None:
    client = await rig.client()

    ours = [(await client.ask(chat(b"svc"))).header(b"x-request-id") for _ in range(4)]
    theirs = [(await client.ask(chat(b"svc", b"X-Request-Id: a"))).header(b"x-request-id") for _ in range(4)]

    assert len(set(ours)) == 4
    assert theirs == [b"a"] * 4
    assert [i.request_id for i in rig.recorder.inferences] == [(id_ or b"").decode() for id_ in ours + theirs]


async def test_pipelined_requests_to_models_are_answered_in_their_order() -> None:
    async with wire_rig(services=("one", "two")) as rig:
        client = await rig.client()
        asked = [b"one", b"two", b"none", b"two", b"one"] * 4

        await client.send(b"".join(map(chat, asked)))
        answers = [await client.response(b"POST") for _ in asked]

        for model, response in zip(asked, answers, strict=True):
            assert b'"%b"' % model in response.body or response.status == 404


async def test_a_body_in_chunks_is_read_anew_every_time(rig: WireRig) -> None:
    client = await rig.client()
    head = build_request(b"/v1/chat/completions", JSON, b"Transfer-Encoding: chunked", method=b"POST")

    for model in (b"svc", b"nix", b"svc", b"nix"):
        response = await client.ask(head + b"f\r\n" + b'{"model":"%b"}\r\n0\r\n\r\n' % model)
        assert (response.status == 200) == (model == b"svc")
