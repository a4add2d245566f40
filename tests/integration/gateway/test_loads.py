"""Requests to models that are not loaded: what clients hear meanwhile, and what comes of it."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from tests.integration.gateway.models import (
    CHUNKED,
    DONE,
    EVENT,
    ask,
    chunk,
    error,
    offer,
)
from tests.rigs.raw_backend import BackendConnection, RawBackend, Script, answer, answer_and_close, ok
from tests.rigs.raw_http import RawClient
from tests.rigs.wire_rig import WireRig, eventually, wire_rig

from ai_proxy.core.abilities import Abilities, Endpoint
from ai_proxy.core.errors import ServiceStoppedError
from ai_proxy.core.service import Outcome, Upstream

STREAM = CHUNKED + chunk(EVENT) + DONE


@pytest.fixture
async def rig() -> AsyncIterator[WireRig]:
    async with wire_rig(services=("svc", "other")) as rig:
        rig.gateway.publish([offer(models=("llama3",)), offer("other", listed=["phi"])])
        yield rig


async def begin(rig: WireRig, *more: bytes) -> RawClient:
    """Ask for a stream of a model that loads, and hear of that."""
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(b"".join([ask(model="llama3", stream=True), *more]))
    await client.until(b": loading svc")
    return client


async def test_the_client_of_a_stream_hears_of_a_load_and_then_gets_its_stream(rig: WireRig) -> None:
    rig.admission.hold("svc")
    rig.admission.load_times["svc"] = 40.0
    rig.backend.script = answer_and_close(CHUNKED + chunk(EVENT) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    client = await rig.client()
    await client.send(ask(model="llama3", stream=True))

    head = await client.until(b": loading svc 0/40 s\n\n\r\n")
    rig.admission.open("svc")
    rest = await client.until(b"0\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
    assert rest.endswith(chunk(EVENT) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    (inference,) = rig.recorder.inferences
    assert (inference.loaded, inference.status, inference.streamed) == (True, 200, True)


async def test_a_load_that_fails_is_told_in_the_stream_that_has_begun(rig: WireRig) -> None:
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(ask(model="llama3", stream=True))
    await client.until(b": loading svc")

    rig.admission.refuse("svc", ServiceStoppedError("stopped by hand"))
    rest = await client.until_closed()

    assert b'"code":"service_stopped"' in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_an_engines_refusal_after_a_load_is_told_in_the_stream(rig: WireRig) -> None:
    rig.admission.hold("svc")
    body = b'{"error":{"message":"too long","code":400}}'
    rig.backend.script = answer(b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    client = await rig.client()
    await client.send(ask(model="llama3", stream=True))
    await client.until(b": loading svc")

    rig.admission.open("svc")
    rest = await client.until_closed()

    assert rest.endswith(chunk(b"data: " + body + b"\n\n"))


async def test_without_heartbeats_a_refusal_has_its_status(rig: WireRig) -> None:
    rig.gateway.publish([offer(models=("llama3",), heartbeat=False)])
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(ask(model="llama3", stream=True))
    await rig.admission.wait_for_waiting(1)

    rig.admission.refuse("svc", ServiceStoppedError("stopped by hand"))
    response = await client.response(b"POST")

    assert (response.status, error(response)["code"]) == (503, "service_stopped")


async def test_a_client_that_leaves_during_a_load_gives_up_its_place(rig: WireRig) -> None:
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(ask(model="llama3", stream=True))
    await client.until(b": loading svc")

    await client.close()
    await rig.admission.wait_for_waiting(0)

    (inference,) = rig.recorder.inferences
    assert inference.status == 499


async def test_what_an_engine_calls_its_model_may_be_known_only_after_its_start(rig: WireRig) -> None:
    rig.gateway.publish([offer(models=("llama3",))])
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(ask(model="llama3"))
    await rig.admission.wait_for_waiting(1)

    rig.gateway.publish([offer(models=("llama3",), listed=["/models/llama3.gguf"])])
    rig.admission.open("svc")
    await client.response(b"POST")

    (request,) = rig.backend.requests
    assert json.loads(request.body) == {"model": "/models/llama3.gguf"}


async def test_a_request_behind_one_that_loads_is_answered_after_it(rig: WireRig) -> None:
    rig.backend.script = answer(STREAM)
    client = await begin(rig, ask(model="phi"))

    rig.admission.open("svc")
    await client.until(b"0\r\n\r\n")
    second = await client.response(b"POST")

    assert b'"phi"' in second.body


async def test_a_connection_goes_on_after_a_load_was_told(rig: WireRig) -> None:
    rig.backend.script = answer(STREAM)
    client = await begin(rig)
    rig.admission.open("svc")
    await client.until(b"0\r\n\r\n")

    again = await client.ask(ask(model="llama3", stream=True))

    assert again.body == EVENT + b"data: [DONE]\n\n"


@pytest.mark.parametrize("turns", range(1, 8))
async def test_a_client_that_leaves_as_its_load_ends_leaves_no_lease(rig: WireRig, turns: int) -> None:
    await begin(rig)
    (connection,) = rig.connections

    rig.admission.open("svc")
    for _ in range(turns):
        await asyncio.sleep(0)
    connection.transport.abort()

    await eventually(lambda: not rig.connections)
    await eventually(lambda: rig.admission.in_flight["svc"] == 0)


async def test_a_model_that_moves_during_its_load_is_had_from_where_it_was_waited_for(rig: WireRig) -> None:
    """And it is never asked with another service's key."""
    rig.gateway.publish([offer(models=("m",), api_key="sk-svc"), offer("other", api_key="sk-other")])
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(ask(model="m"))
    await rig.admission.wait_for_waiting(1)

    rig.gateway.publish([offer(api_key="sk-svc"), offer("other", models=("m",), api_key="sk-other")])
    rig.admission.open("svc")
    await client.response(b"POST")

    (request,) = rig.backend.requests
    assert request.all(b"authorization") == [b"Bearer sk-svc"]
    assert rig.backends["other"].requests == []


async def test_a_model_that_the_engine_turns_out_to_lack_is_404_with_near_names(rig: WireRig) -> None:
    rig.gateway.publish([offer()])
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(ask(model="svc/lama3"))
    await rig.admission.wait_for_waiting(1)

    rig.gateway.publish([offer(listed=["llama3", "phi"])])
    rig.admission.open("svc")
    response = await client.response(b"POST")

    assert (response.status, error(response)["code"]) == (404, "model_not_found")
    assert rig.backend.requests == []


async def test_an_engine_that_turns_out_to_speak_the_clients_dialect_is_asked_in_it(rig: WireRig) -> None:
    rig.admission.hold("svc")
    client = await rig.client()
    message = {"model": "llama3", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    await client.send(ask(b"/v1/messages", **message))
    await rig.admission.wait_for_waiting(1)

    able = Abilities("Able", frozenset({Endpoint.MESSAGES}))
    rig.gateway.publish([offer(models=("llama3",), abilities=able)])
    rig.admission.open("svc")
    response = await client.response(b"POST")

    assert response.body.startswith(b"POST /v1/messages HTTP/1.1|")


async def test_a_client_that_hears_of_a_load_may_wait_longer_for_its_first_token_than_between_two() -> None:
    async with wire_rig() as rig:
        rig.gateway.publish([offer(models=("llama3",), stream_idle_timeout=0.1, response_timeout=10.0)])

        async def think(connection: BackendConnection) -> None:
            await connection.request()
            await asyncio.sleep(0.3)
            await connection.send(STREAM)

        rig.backend.script = think
        client = await begin(rig)
        rig.admission.open("svc")

        rest = await client.until(b"0\r\n\r\n")

        assert EVENT in rest


async def test_an_engine_that_never_answers_after_a_load_is_told_in_the_stream() -> None:
    async with wire_rig() as rig:
        rig.gateway.publish([offer(models=("llama3",), response_timeout=0.1)])

        async def be_silent(connection: BackendConnection) -> None:
            await connection.until_closed()

        rig.backend.script = be_silent
        client = await begin(rig)
        rig.admission.open("svc")

        rest = await client.until_closed()

        assert b"upstream_timeout" in rest
        assert not rest.endswith(b"0\r\n\r\n")
        assert rig.admission.outcomes == [("svc", Outcome.TIMEOUT)]


async def test_a_load_that_is_told_is_not_yet_an_answer(rig: WireRig) -> None:
    await begin(rig)

    (live,) = rig.gateway.live()

    assert live.state == "waiting"


BUSY = answer(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize("fails", [BUSY, None], ids=["busy", "refuses"])
async def test_another_replica_is_tried_after_a_load_was_told(rig: WireRig, fails: Script | None) -> None:
    first = RawBackend(fails or BUSY)
    address = await first.listen()
    if fails is None:
        await first.stop()
    rig.admission.spares["svc"] = [rig.admission.upstreams["svc"]]
    rig.admission.upstreams["svc"] = Upstream(address.host, address.port)
    rig.backend.script = answer(STREAM)
    client = await begin(rig)

    rig.admission.open("svc")
    rest = await client.until(b"0\r\n\r\n")

    assert EVENT in rest
    assert len(rig.admission.moves) == 1
    await first.close()


async def test_an_engine_that_cannot_be_reached_after_a_load_is_told_in_the_stream(rig: WireRig) -> None:
    await rig.backend.stop()
    client = await begin(rig)

    rig.admission.open("svc")
    rest = await client.until_closed()

    assert b"upstream_unreachable" in rest or b"upstream_connect" in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_an_engines_refusal_after_a_load_is_not_its_replicas_fault(rig: WireRig) -> None:
    rig.backend.script = answer(b"HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\n{}")
    client = await begin(rig)

    rig.admission.open("svc")
    await client.until_closed()

    assert rig.admission.outcomes == [("svc", Outcome.OK)]


async def test_what_comes_compressed_after_a_load_was_told_is_not_passed_on(rig: WireRig) -> None:
    head = CHUNKED.removesuffix(b"\r\n") + b"content-encoding: gzip\r\n\r\n"
    rig.backend.script = answer(head + chunk(b"\x1f\x8b") + b"0\r\n\r\n")
    client = await begin(rig)

    rig.admission.open("svc")
    rest = await client.until_closed()

    assert b"upstream_invalid_response" in rest
    assert not rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("answered", [ok(b"{}"), b"HTTP/1.1 204 No\r\n\r\n"], ids=["JSON", "nothing"])
async def test_an_answer_without_a_stream_after_a_load_is_told_in_the_stream(
    rig: WireRig, answered: bytes
) -> None:
    rig.backend.script = answer(answered)
    client = await begin(rig)

    rig.admission.open("svc")
    rest = await client.until_closed()

    assert b"upstream_invalid_response" in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_a_stream_of_known_length_is_whole_after_a_load_was_told(rig: WireRig) -> None:
    rig.backend.script = answer(ok(EVENT * 3, b"content-type: text/event-stream") + b"surplus")
    client = await begin(rig)

    rig.admission.open("svc")
    rest = await client.until(b"0\r\n\r\n")

    assert rest.endswith(chunk(EVENT * 3) + b"0\r\n\r\n")


async def test_a_client_of_http_1_0_hears_nothing_before_its_answer(rig: WireRig) -> None:
    rig.admission.hold("svc")
    rig.backend.script = answer(STREAM)
    client = await rig.client()
    await client.send(ask(model="llama3", stream=True).replace(b"HTTP/1.1", b"HTTP/1.0"))
    await rig.admission.wait_for_waiting(1)
    await asyncio.sleep(rig.gateway.shared.heartbeat * 2)

    rig.admission.open("svc")
    everything = await client.until_eof()

    assert b"loading" not in everything
    assert everything.endswith(EVENT + b"data: [DONE]\n\n")


async def test_the_end_of_the_proxy_is_told_to_those_who_wait(rig: WireRig) -> None:
    client = await begin(rig)

    closing = asyncio.gather(rig.gateway.close())
    rig.admission.refuse("svc", ServiceStoppedError("the proxy is shutting down"))
    rest = await client.until_closed()
    await closing

    assert b"service_stopped" in rest
