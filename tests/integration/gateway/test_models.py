"""Requests to models on the wire: who is asked, what arrives there, what the client is told."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities, Endpoint, Modality, Rule, Treatment
from ai_proxy.core.errors import ServiceStoppedError
from ai_proxy.core.ports import Model
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import ExternalLaunch, Service
from ai_proxy.core.settings import Limits
from ai_proxy.core.usage import UNKNOWN
from ai_proxy.testing.raw_backend import BackendConnection, answer, answer_and_close, by_hand, ok
from ai_proxy.testing.raw_http import Message, TruncatedError, build_request
from ai_proxy.testing.wire_rig import WireRig, wire_rig

CHAT = b"/v1/chat/completions"
JSON = b"content-type: application/json"
PLAIN = Abilities("Plain", TEXT_ENDPOINTS)
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
USAGE = b'{"usage":{"prompt_tokens":7,"completion_tokens":3}}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def offer(service_id: str = "svc", abilities: Abilities = PLAIN, listed: Any = (), **facts: Any) -> Offer:
    plain: dict[str, Any] = {
        "type": "any",
        "engine": "plain",
        "launch": ExternalLaunch(()),
        "config_hash": "1",
    }
    return Offer(Service(id=service_id, **plain | facts), abilities, tuple(Model(name) for name in listed))


def ask(path: bytes = CHAT, **body: Any) -> bytes:
    return build_request(path, JSON, body=json.dumps(body).encode())


def error(response: Message) -> dict[str, Any]:
    told = json.loads(response.body)["error"]
    assert isinstance(told, dict)
    return told


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


BAD = {
    "empty": (b"", "it is empty", None),
    "no JSON": (b"model=llama3", "the body must be a JSON object", None),
    "cut short": (b'{"model":"llama3"', "the body must be a JSON object", None),
    "a list": (b"[]", "the body must be a JSON object", None),
    "no model": (b'{"messages":[]}', "must say which model", "model"),
    "a number as model": (b'{"model":7}', "model must be a string", "model"),
    "nested without end": (b'{"model":' + b"[" * 100_000, "the body must be a JSON object", None),
    "not UTF-8": (b'{"model":"\xff"}', "", None),
}


@pytest.mark.parametrize(("body", "says", "param"), BAD.values(), ids=BAD)
async def test_a_bad_body_is_400_in_words(rig: WireRig, body: bytes, says: str, param: str | None) -> None:
    response = await rig.ask(build_request(CHAT, JSON, method=b"POST", body=body))

    told = error(response)
    assert (response.status, told["type"]) == (400, "invalid_request_error")
    assert says in told["message"]
    assert param is None or told["param"] == param


async def test_json_is_taken_whatever_the_client_calls_it(rig: WireRig) -> None:
    form = b"content-type: application/x-www-form-urlencoded"

    await rig.ask(build_request(CHAT, form, body=b'{"model":"phi"}'))

    (request,) = rig.backends["other"].requests
    assert request.all(b"content-type") == [b"application/json"]


async def test_too_much_json_is_413_and_not_held() -> None:
    async with wire_rig(Limits(max_json_body=1000)) as rig:
        response = await rig.ask(ask(model="m", messages="x" * 2000))

        assert (response.status, error(response)["code"]) == (413, "body_too_large")


async def test_the_services_key_is_sent_and_never_the_clients(rig: WireRig) -> None:
    rig.gateway.publish([offer(listed=["m"], api_key="sk-service"), offer("other", listed=["n"])])
    keys = [b"Authorization: Bearer mine", b"X-Api-Key: mine", b"api-key: mine"]
    client = await rig.client()

    for model in ("m", "n", "m"):
        body = json.dumps({"model": model}).encode()
        await client.ask(build_request(CHAT, *keys, body=body))

    first, again = rig.backend.requests
    (other,) = rig.backends["other"].requests
    assert first.all(b"authorization") == again.all(b"authorization") == [b"Bearer sk-service"]
    assert other.header(b"authorization") is None
    assert not any(b"mine" in value for r in (first, again, other) for _, value in r.headers)


async def test_an_endpoint_the_engine_lacks_is_501_that_names_the_engine(rig: WireRig) -> None:
    response = await rig.ask(ask(b"/v1/rerank", model="phi"))

    told = error(response)
    assert (response.status, told["code"]) == (501, "not_supported_by_engine")
    assert "Plain" in told["message"]
    assert rig.backends["other"].requests == []


async def test_parameters_are_set_defaulted_dropped_clamped_and_told(rig: WireRig) -> None:
    rules = {
        "temperature": Rule(Treatment.CLAMP, 0, 2),
        "logit_bias": Rule(Treatment.DROP, why="Plain has none"),
    }
    abilities = Abilities("Plain", TEXT_ENDPOINTS, rules)
    service = offer(
        abilities=abilities,
        listed=["m"],
        set_params={"seed": 7},
        default_params={"top_p": 0.5, "top_k": 3},
        drop_params=("user",),
    )
    rig.gateway.publish([service])

    response = await rig.ask(
        ask(model="m", temperature=9, logit_bias={}, seed=1, top_p=0.9, user="me", messages=[])
    )

    (request,) = rig.backend.requests
    sent = {"model": "m", "temperature": 2, "seed": 7, "top_p": 0.9, "top_k": 3, "messages": []}
    assert json.loads(request.body) == sent
    warning = b"logit_bias was left out (Plain has none); temperature was set to 2"
    assert response.header(b"x-ai-proxy-warning") == warning


async def test_a_parameter_that_must_not_be_ignored_is_400(rig: WireRig) -> None:
    abilities = Abilities("Plain", TEXT_ENDPOINTS, {"tools": Rule(Treatment.REJECT)})
    rig.gateway.publish([offer(abilities=abilities, listed=["m"])])

    response = await rig.ask(ask(model="m", tools=[{}]))

    told = error(response)
    assert (response.status, told["code"], told["param"]) == (400, "unsupported_parameter", "tools")


async def test_images_for_a_model_without_eyes_are_422(rig: WireRig) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}

    response = await rig.ask(ask(model="phi", messages=[{"role": "user", "content": [part]}]))

    assert (response.status, error(response)["code"]) == (422, "unsupported_modalities")


async def test_a_prompt_that_only_speaks_of_images_is_no_image(rig: WireRig) -> None:
    text = 'write {"type":"image_url"} and "image_url"'

    response = await rig.ask(ask(model="phi", messages=[{"role": "user", "content": text}]))

    assert response.status == 200


async def test_images_pass_where_the_engine_takes_them(rig: WireRig) -> None:
    seeing = Abilities("Seeing", TEXT_ENDPOINTS, modalities=frozenset({Modality.IMAGE}))
    rig.gateway.publish([offer(abilities=seeing, listed=["m"])])
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}

    response = await rig.ask(ask(model="m", messages=[{"role": "user", "content": [part]}]))

    assert response.status == 200


async def test_an_engines_own_error_passes_untouched(rig: WireRig) -> None:
    body = b'{"error":{"message":"no such thing","code":400}}'
    rig.backend.script = answer(b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    response = await rig.ask(ask(model="llama3"))

    assert (response.status, response.body, response.error_code) == (400, body, None)


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


UPLOAD = (
    b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
)
MULTIPART = b"content-type: multipart/form-data; boundary=xyz"
HEARING = Abilities("Hearing", frozenset({Endpoint.TRANSCRIPTIONS}))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("asked", "arrives"), [(b"m", b"m"), (b"whisper-1", b"m")])
async def test_an_upload_goes_where_its_model_is(
    rig: WireRig, asked: bytes, arrives: bytes, *, chunked: bool
) -> None:
    rig.gateway.publish([offer(abilities=HEARING, listed=["m"], models=("m", "whisper-1"))])
    body = UPLOAD % asked + b"RIFF" * 50_000 + b"\r\n--xyz--\r\n"
    if chunked:
        framing, sent = (
            [b"transfer-encoding: chunked"],
            b"".join(chunk(body[i : i + 7000]) for i in range(0, len(body), 7000)) + b"0\r\n\r\n",
        )
    else:
        framing, sent = [b"content-length: %d" % len(body)], body
    head = [b"POST /v1/audio/transcriptions HTTP/1.1", b"host: x", MULTIPART, *framing, b"", b""]

    response = await rig.ask(b"\r\n".join(head) + sent)

    (request,) = rig.backend.requests
    assert response.status == 200
    assert request.body == UPLOAD % arrives + b"RIFF" * 50_000 + b"\r\n--xyz--\r\n"


async def test_an_upload_is_passed_on_before_it_is_whole(rig: WireRig) -> None:
    rig.gateway.publish([offer(abilities=HEARING, listed=["m"])])
    rig.backend.script = by_hand
    client = await rig.client()
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: 10000\r\n\r\n"

    await client.send(head % MULTIPART + UPLOAD % b"m")

    arrived = await (await rig.backend.connection()).until(UPLOAD % b"m")
    assert b"content-length: 10000" in arrived


BAD_UPLOADS = {
    "no model": b'--xyz\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n--xyz--\r\n',
    "the model after the file": b"--xyz\r\n"
    b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\nA\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--xyz--\r\n',
    "nothing": b"",
    "no end": b"--xyz\r\n" + b"x" * 100_000,
}


@pytest.mark.parametrize("body", BAD_UPLOADS.values(), ids=BAD_UPLOADS)
async def test_an_upload_that_does_not_begin_with_its_model_is_400(rig: WireRig, body: bytes) -> None:
    response = await rig.ask(build_request(b"/v1/audio/transcriptions", MULTIPART, method=b"POST", body=body))

    assert (response.status, error(response)["param"]) == (400, "model")


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
    rig.gateway.tracing = Tracing()
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
