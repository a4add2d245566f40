"""Requests to models on the wire: who is asked, what arrives there, what the client is told."""

import gc
import json
from collections.abc import AsyncIterator

import pytest
from loguru import logger
from tests.integration.gateway.models import (
    CHAT,
    CHUNKED,
    EVENT,
    JSON,
    USAGE,
    ask,
    chunk,
    error,
    offer,
)
from tests.rigs.raw_backend import BackendConnection, answer, answer_and_close, by_hand, ok
from tests.rigs.raw_http import TruncatedError, build_request
from tests.rigs.wire_rig import WireRig, eventually, wire_rig

from ai_proxy.core.usage import UNKNOWN
from ai_proxy.gateway.exchange import Exchange
from ai_proxy.gateway.http.client import ClientConnection


@pytest.fixture
async def rig() -> AsyncIterator[WireRig]:
    async with wire_rig(services=("svc", "other")) as rig:
        rig.gateway.publish([offer(models=("llama3",)), offer("other", listed=["phi", "qwen"])])
        yield rig


async def test_the_model_in_the_body_decides_who_is_asked(rig: WireRig) -> None:
    first = await rig.ask(ask(model="llama3"))
    second = await rig.ask(ask(model="phi"))

    assert (first.status, second.status) == (200, 200)
    assert [r.target for r in rig.backend.requests] == [CHAT]
    assert [r.target for r in rig.backends["other"].requests] == [CHAT]


async def test_a_body_that_needs_no_change_arrives_byte_for_byte(rig: WireRig) -> None:
    body = b'{ "model" :\t"phi",  "temperature":0.70, "messages":[{"content":"\\u00e9 \xc3\xa9"}]}'

    await rig.ask(build_request(CHAT, JSON, method=b"POST", body=body))

    (request,) = rig.backends["other"].requests
    assert request.body == body


async def test_a_kept_connection_may_change_the_model_with_every_request(rig: WireRig) -> None:
    client = await rig.client()

    for model in ("llama3", "phi", "llama3", "qwen", "phi"):
        response = await client.ask(ask(model=model))
        assert response.status == 200

    assert [json.loads(r.body)["model"] for r in rig.backend.requests] == ["llama3"] * 2
    assert [json.loads(r.body)["model"] for r in rig.backends["other"].requests] == ["phi", "qwen", "phi"]


async def test_a_connection_that_repeats_itself_is_told_of_an_unknown_model(rig: WireRig) -> None:
    client = await rig.client()
    await client.ask(ask(model="phi"))
    await client.ask(ask(model="phi"))

    response = await client.ask(ask(model="phj"))

    assert response.status == 404
    assert (await client.ask(ask(model="phi"))).status == 200


@pytest.mark.parametrize("name", ["other/phi", "flm://plain/phi", "flm://other/phi"])
async def test_a_service_or_an_engine_may_be_named_with_the_model(rig: WireRig, name: str) -> None:
    await rig.ask(ask(model=name))

    (request,) = rig.backends["other"].requests
    assert json.loads(request.body) == {"model": "phi"}


async def test_an_alias_is_renamed_and_nothing_else(rig: WireRig) -> None:
    rig.gateway.publish([offer(aliases={"gpt-4o": "llama3:8b"})])
    body = b'{"model":"gpt-4o","temperature":0.70,"messages":[{"content":"\\u00e9"}]}'

    await rig.ask(build_request(CHAT, JSON, method=b"POST", body=body))

    (request,) = rig.backend.requests
    assert request.body == b'{"model":"llama3:8b","temperature":0.70,"messages":[{"content":"\\u00e9"}]}'


async def test_an_unknown_model_is_404_with_near_names(rig: WireRig) -> None:
    response = await rig.ask(ask(model="lama3"))

    told = error(response)
    assert (response.status, told["code"], response.error_code) == (
        404,
        "model_not_found",
        b"model_not_found",
    )
    assert "'llama3'" in told["message"]
    assert told["request_id"] == (response.header(b"x-request-id") or b"").decode()
    assert response.header(b"content-type") == b"application/json"


async def test_a_model_of_two_services_is_404_that_names_both(rig: WireRig) -> None:
    rig.gateway.publish([offer(listed=["phi"]), offer("other", listed=["phi"])])

    response = await rig.ask(ask(model="phi"))

    assert response.status == 404
    assert "svc/phi or other/phi" in error(response)["message"]


@pytest.mark.threat("a backend", "requests for another service")
async def test_the_log_says_when_another_service_lists_the_same_models(rig: WireRig) -> None:
    lines: list[str] = []
    rig.gateway.publish([offer(listed=["phi", "qwen"]), offer("other")])
    sink = logger.add(lines.append, level="WARNING", format="{message}")

    for _ in range(2):
        rig.gateway.publish([offer(listed=["phi", "qwen"]), offer("other", listed=["phi", "qwen"])])

    logger.remove(sink)
    example = "name the service too, as in svc/phi or other/phi"
    assert lines == [f"several services have the model phi and 1 more; {example}\n"]


@pytest.mark.threat("an ordinary key", "a service's API key")
async def test_the_services_key_is_sent_and_never_the_clients(rig: WireRig) -> None:
    rig.gateway.publish([offer(listed=["m"], api_key="sk-service"), offer("other", listed=["n"])])
    keys = [b"Authorization: Bearer mine", b"X-Api-Key: mine", b"api-key: mine", b"Cookie: session=mine"]
    client = await rig.client()

    for model in ("m", "n", "m"):
        body = json.dumps({"model": model}).encode()
        await client.ask(build_request(CHAT, *keys, body=body))

    first, again = rig.backend.requests
    (other,) = rig.backends["other"].requests
    assert first.all(b"authorization") == again.all(b"authorization") == [b"Bearer sk-service"]
    assert other.header(b"authorization") is None
    assert not any(b"mine" in value for r in (first, again, other) for _, value in r.headers)


@pytest.mark.threat("a backend", "the key of another service")
async def test_each_service_behind_one_address_has_its_own_key(rig: WireRig) -> None:
    rig.admission.upstreams["other"] = rig.admission.upstreams["svc"]
    rig.gateway.publish([offer(listed=["m"], api_key="sk-m"), offer("other", listed=["n"], api_key="sk-n")])
    client = await rig.client()

    for model in "mnmnm":
        await client.ask(ask(model=model))

    asked = [(json.loads(r.body)["model"], r.header(b"authorization")) for r in rig.backend.requests]
    assert asked == [(model, b"Bearer sk-%b" % model.encode()) for model in "mnmnm"]


async def test_a_prompt_is_not_kept_while_it_is_answered(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(ask(model="llama3", stream=True, prompt="x" * 9000))
    backend = await rig.backend.connection()
    await backend.until(b'x"}')

    await backend.send(CHUNKED + chunk(EVENT))
    await client.until(EVENT)

    (exchange,) = [c.current for c in rig.connections]
    assert isinstance(exchange, Exchange)
    assert [exchange.body, exchange.payload, exchange.original] == [None, b"", b""]


async def test_an_endpoint_the_engine_lacks_is_501_that_names_the_engine(rig: WireRig) -> None:
    response = await rig.ask(ask(b"/v1/rerank", model="phi"))

    told = error(response)
    assert (response.status, told["code"]) == (501, "not_supported_by_engine")
    assert "Plain" in told["message"]
    assert rig.backends["other"].requests == []


async def test_an_engines_own_error_passes_untouched(rig: WireRig) -> None:
    body = b'{"error":{"message":"no such thing","code":400}}'
    rig.backend.script = answer(b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    response = await rig.ask(ask(model="llama3"))

    assert (response.status, response.body, response.error_code) == (400, body, None)


@pytest.mark.threat("a backend", "an unrequested stream to a client")
async def test_a_stream_that_nobody_asked_for_is_502(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(CHUNKED + chunk(EVENT) + b"0\r\n\r\n")

    response = await rig.ask(ask(model="llama3"))

    assert (response.status, error(response)["code"]) == (502, "upstream_invalid_response")


async def test_an_engine_that_dies_in_a_stream_is_told_as_an_event_and_not_as_an_end(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(CHUNKED + chunk(EVENT))
    client = await rig.client()
    await client.send(ask(model="llama3", stream=True))

    with pytest.raises(TruncatedError) as cut:
        await client.response(b"POST")

    first, told = cut.value.message.body.split(b"\n\n")[:2]
    assert first + b"\n\n" == EVENT
    assert json.loads(told.removeprefix(b"data: "))["error"]["code"] == "upstream_closed"


async def test_an_engine_that_dies_within_an_event_leaves_it_broken(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(CHUNKED + chunk(EVENT)[:-9])
    client = await rig.client()
    await client.send(ask(model="llama3", stream=True))

    with pytest.raises(TruncatedError) as cut:
        await client.response(b"POST")

    assert b"error" not in cut.value.message.body


async def test_a_stream_that_stalls_is_ended_with_an_event() -> None:
    async with wire_rig(stream_idle_timeout=0.1) as rig:
        rig.gateway.publish([offer(listed=["m"], stream_idle_timeout=0.1)])

        async def stall(connection: BackendConnection) -> None:
            await connection.request()
            await connection.send(CHUNKED + chunk(EVENT))
            await connection.until_closed()

        rig.backend.script = stall
        client = await rig.client()
        await client.send(ask(model="m", stream=True))

        with pytest.raises(TruncatedError) as cut:
            await client.response(b"POST")

        assert b"upstream_timeout" in cut.value.message.body


async def test_tokens_are_taken_from_the_engines_usage(rig: WireRig) -> None:
    rig.backend.script = answer(ok(USAGE))

    await rig.ask(ask(model="llama3"))

    (inference,) = rig.recorder.inferences
    assert (inference.tokens_in, inference.tokens_out) == (7, 3)
    assert (inference.model, inference.service_id, inference.endpoint) == ("llama3", "svc", CHAT.decode())


async def test_tokens_of_a_stream_without_usage_are_its_events(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(
        CHUNKED + chunk(EVENT) * 5 + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    )

    await rig.ask(ask(model="llama3", stream=True))

    (inference,) = rig.recorder.inferences
    assert (inference.tokens_in, inference.tokens_out) == (UNKNOWN, 5)
    assert 0 <= inference.waited <= inference.first_token <= inference.seconds


async def test_a_refused_request_is_recorded_with_its_error(rig: WireRig) -> None:
    await rig.ask(ask(model="nothing"))

    (inference,) = rig.recorder.inferences
    assert (inference.status, inference.error, inference.service_id) == (404, "model_not_found", "")


def alive() -> list[ClientConnection | Exchange]:
    return [thing for thing in gc.get_objects() if isinstance(thing, ClientConnection | Exchange)]


async def test_the_record_of_a_request_keeps_nothing_of_its_connection(rig: WireRig) -> None:
    others = alive()  # a test that failed keeps its own
    client = await rig.client()
    request = build_request(CHAT, JSON, b"Authorization: Bearer secret", body=b'{"model":"llama3"}')
    await client.ask(request)
    client.writer.transport.abort()
    await eventually(lambda: not rig.connections)
    gc.collect()

    (record,) = rig.recorder.inferences
    assert {type(fact) for fact in record} == {str, int, float, bool}
    assert [thing for thing in alive() if thing not in others] == []


@pytest.mark.parametrize("target", [b"/v1/models", b"/v1/models/phi", b"/v1/nothing"])
async def test_everything_else_under_v1_is_the_management_apps(rig: WireRig, target: bytes) -> None:
    response = await rig.ask(build_request(target))

    assert response.body == b"GET %b HTTP/1.1|" % target


async def test_a_query_is_kept(rig: WireRig) -> None:
    await rig.ask(ask(CHAT + b"?beta=true", model="llama3"))

    assert rig.backend.requests[0].target == CHAT + b"?beta=true"


CLIENTS = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OURS = b"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"


class Tracing:
    """Takes every request for a child of what it is sent."""

    def begin(self, traceparent: bytes) -> bytes:
        return OURS if traceparent else b""


async def test_the_backend_gets_a_traceparent_of_ours_in_place_of_the_clients(rig: WireRig) -> None:
    rig.gateway.shared.tracing = Tracing()
    client = await rig.client()
    request = build_request(CHAT, JSON, b"Traceparent: " + CLIENTS, body=b'{"model":"llama3"}')

    for _ in range(3):
        await client.ask(request)

    assert [r.all(b"traceparent") for r in rig.backend.requests] == [[OURS]] * 3
    told = {(one.parent, one.traceparent) for one in rig.recorder.inferences}
    assert told == {(CLIENTS.decode(), OURS.decode())}


async def test_without_tracing_the_clients_traceparent_passes(rig: WireRig) -> None:
    await rig.ask(build_request(CHAT, b"traceparent: " + CLIENTS, body=b'{"model":"llama3"}'))

    assert rig.backend.requests[0].all(b"traceparent") == [CLIENTS]


async def test_requests_that_are_not_over_are_shown(rig: WireRig) -> None:
    rig.admission.hold("svc")
    client = await rig.client()
    await client.send(ask(model="llama3"))
    await rig.admission.wait_for_waiting(1)

    (live,) = rig.gateway.live()

    assert (live.model, live.service_id, live.state, live.sent) == ("llama3", "svc", "waiting", 0)
    rig.admission.open("svc")
    await client.response(b"POST")
    assert rig.gateway.live() == []
