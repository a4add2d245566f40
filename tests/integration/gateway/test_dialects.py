"""Anthropic's and Ollama's dialects on the wire, in front of an engine that speaks neither."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.rigs.raw_backend import BackendConnection, answer, answer_and_close, by_hand, ok
from tests.rigs.raw_http import Message, RawClient, TruncatedError, build_request
from tests.rigs.wire_rig import WireRig, eventually, exchange_of, wire_rig

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities, Endpoint
from ai_proxy.core.errors import ServiceStoppedError
from ai_proxy.core.ports import Model
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import ExternalLaunch, Outcome, Service
from ai_proxy.gateway.http.upstream import SLICE, UpstreamConnection
from ai_proxy.gateway.inference.rewriter import ResponseRewriter
from ai_proxy.gateway.routing.endpoints import OLLAMA

JSON = b"content-type: application/json"
ANSWER: dict[str, Any] = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi."}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2},
}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(**choice: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": {}, **choice}]}).encode()


PLAIN = Abilities("Plain", TEXT_ENDPOINTS)
PIECES = (delta(delta={"content": "Hi"}), delta(delta={"content": "."}), delta(finish_reason="stop"))
STREAM = HEAD + b"".join(map(chunk, PIECES)) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def offer(engine: str = "plain", abilities: Abilities | None = None) -> Offer:
    service = Service("svc", "any", engine, ExternalLaunch(()), "1")
    return Offer(service, abilities or PLAIN, (Model("m"),))


@pytest.fixture
async def rig() -> AsyncIterator[WireRig]:
    async with wire_rig() as rig:
        rig.gateway.publish([offer()])
        rig.ollama_port = await rig.gateway.listen("127.0.0.1", 0, frontend=OLLAMA)
        await rig.gateway.accept()
        yield rig


async def ask(rig: WireRig, path: str, *, cut: bool = False, **body: Any) -> Message:
    """Send a request in a dialect to the listener where it is spoken."""
    client = await RawClient.connect(rig.ollama_port if path.startswith("/api") else rig.port)
    try:
        await client.send(build_request(path.encode(), JSON, body=json.dumps(body).encode()))
        if not cut:
            return await client.response(b"POST")
        with pytest.raises(TruncatedError) as raised:
            await client.response(b"POST")
        return raised.value.message
    finally:
        await client.close()


MESSAGES: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
CHAT: dict[str, Any] = {"model": "m:latest", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_message_is_asked_as_a_chat_and_answered_as_a_message(rig: WireRig) -> None:
    rig.backend.script = answer(ok(json.dumps(ANSWER).encode()))

    response = await ask(rig, "/v1/messages", **MESSAGES)

    (request,) = rig.backend.requests
    told = json.loads(response.body)
    assert request.target == b"/v1/chat/completions"
    assert (told["type"], told["content"]) == ("message", [{"type": "text", "text": "Hi."}])
    assert told["usage"]["input_tokens"] == 7
    assert response.header(b"content-type") == b"application/json"


async def test_a_flood_of_events_is_rewritten_in_slices_and_whole(rig: WireRig) -> None:
    words = [f"word{number} " for number in range(20_000)]
    events = b"".join(delta(delta={"content": word}) for word in words) + delta(finish_reason="stop")
    ending = b"data: [DONE]\n\n"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(events + ending), events + ending)
    rig.backend.script = answer(HEAD + body)
    client = await rig.client(rig.ollama_port)
    request = build_request(b"/api/chat", JSON, body=json.dumps(CHAT | {"stream": True}).encode())

    for _ in range(2):
        lines = [json.loads(line) for line in (await client.ask(request)).body.splitlines()]
        assert "".join(line["message"]["content"] for line in lines) == "".join(words)
        assert lines[-1]["done"] is True
    assert len(rig.backend.connections) == 1


async def test_what_was_read_before_an_engine_died_is_rewritten(rig: WireRig) -> None:
    events = delta(delta={"content": "word"}) * 5000
    rig.backend.script = answer_and_close(HEAD + b"%x\r\n%b\r\n" % (len(events), events))
    client = await rig.client(rig.ollama_port)

    await client.send(build_request(b"/api/chat", JSON, body=json.dumps(CHAT).encode()))

    assert (await client.until_closed()).count(b'"content":"word"') == 5000


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
@pytest.mark.parametrize("framing", ["chunked", "until it closes"])
async def test_a_flood_that_comes_with_the_head_and_the_end_is_rewritten_in_slices(
    rig: WireRig, framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Counting(ResponseRewriter):
        def body(self, data: bytes) -> bytes:
            sizes.append(len(data))
            return super().body(data)

    monkeypatch.setattr("ai_proxy.gateway.exchange.ResponseRewriter", Counting)
    flood = delta(delta={"content": "word"}) * 1500 + delta(finish_reason="stop") + b"data: [DONE]\n\n"
    head, body = HEAD, chunk(flood) + b"0\r\n\r\n"
    if framing != "chunked":
        head, body = HEAD.replace(b"transfer-encoding: chunked\r\n", b""), flood
    rig.backend.script = answer_and_close(head + body)

    response = await ask(rig, "/api/chat", **CHAT)

    assert response.body.count(b'"content":"word"') == 1500
    assert b'"done":true' in response.body.splitlines()[-1]
    assert max(sizes) <= SLICE


@pytest.mark.threat("an ordinary key", "exhaustion of memory or CPU time")
async def test_a_translated_request_does_not_last_as_long_as_its_answer(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    body = json.dumps(MESSAGES | {"stream": True}).encode()
    await client.send(build_request(b"/v1/messages", JSON, body=body))
    engine = await rig.backend.connection()
    await engine.request()

    await engine.send(HEAD + chunk(PIECES[0]))
    await client.until(b"Hi")

    exchange = exchange_of(rig.connections[0])
    assert exchange.resolver is not None
    assert exchange.resolver.translation is not None
    assert (exchange.payload, exchange.original, exchange.resolver.translation.request) == (b"", b"", b"")


async def test_a_slow_client_holds_up_a_flood_of_events(rig: WireRig) -> None:
    flood = delta(delta={"content": "word" * 20}) * 20_000
    ending = delta(finish_reason="stop") + b"data: [DONE]\n\n"
    rig.backend.script = answer(HEAD + chunk(flood) + chunk(ending) + b"0\r\n\r\n")
    client = await rig.client(rig.ollama_port, receive_buffer=4096)
    await client.send(build_request(b"/api/chat", JSON, body=json.dumps(CHAT).encode()))
    await eventually(lambda: rig.connections and rig.connections[0].write_paused)
    held = exchange_of(rig.connections[0]).upstream
    assert isinstance(held, UpstreamConnection)
    assert held.paused

    response = await client.response(b"POST")

    assert response.body.count(b'"word') == 20_000
    assert b'"done":true' in response.body.splitlines()[-1]
    assert not held.backlog


async def test_an_engine_may_say_that_it_does_not_compress(rig: WireRig) -> None:
    rig.backend.script = answer(ok(json.dumps(ANSWER).encode(), b"Content-Encoding: identity"))

    assert (await ask(rig, "/v1/messages", **MESSAGES)).status == 200


async def test_a_streamed_message_has_anthropics_events(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(STREAM)

    response = await ask(rig, "/v1/messages", **MESSAGES, stream=True)

    kinds = [line[7:] for line in response.body.split(b"\n") if line.startswith(b"event: ")]
    assert kinds[0] == b"message_start"
    assert kinds[-2:] == [b"message_delta", b"message_stop"]
    assert response.header(b"content-type") == b"text/event-stream"


async def test_an_engine_that_speaks_anthropics_dialect_gets_the_request_as_it_is(rig: WireRig) -> None:
    rig.gateway.publish([offer(abilities=Abilities("Able", frozenset({Endpoint.MESSAGES})))])

    await ask(rig, "/v1/messages", **MESSAGES)

    (request,) = rig.backend.requests
    assert (request.target, json.loads(request.body)) == (b"/v1/messages", MESSAGES)


async def test_an_engine_without_chat_cannot_be_translated_for(rig: WireRig) -> None:
    rig.gateway.publish([offer(abilities=Abilities("Embedder", frozenset({Endpoint.EMBEDDINGS})))])

    response = await ask(rig, "/v1/messages", **MESSAGES)

    told = json.loads(response.body)
    assert (response.status, told["type"]) == (501, "error")
    assert "Embedder" in told["error"]["message"]


async def test_an_engines_error_is_told_in_the_clients_dialect_with_its_status(rig: WireRig) -> None:
    body = b'{"error":{"message":"too long","type":"invalid_request_error"}}'
    rig.backend.script = answer(b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    message = await ask(rig, "/v1/messages", **MESSAGES)
    chat = await ask(rig, "/api/chat", **CHAT)

    assert (message.status, json.loads(message.body)["error"]["message"]) == (400, "too long")
    assert (chat.status, json.loads(chat.body)) == (400, {"error": "too long"})


@pytest.mark.threat("a backend", "a truncated answer that looks complete")
@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat"])
async def test_an_engine_that_dies_in_a_stream_is_an_error_and_a_truncated_response(
    rig: WireRig, path: str
) -> None:
    rig.backend.script = answer_and_close(HEAD + chunk(PIECES[0]))
    body = MESSAGES if path == "/v1/messages" else CHAT

    response = await ask(rig, path, cut=True, **body, stream=True)

    assert b"error" in response.body.splitlines()[-1] or b"error" in response.body.splitlines()[-2]


@pytest.mark.threat("a backend", "a truncated answer that looks complete")
@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat"])
async def test_a_stream_without_its_final_event_is_truncated(rig: WireRig, path: str) -> None:
    rig.backend.script = answer_and_close(HEAD + chunk(PIECES[0]) + b"0\r\n\r\n")
    body = MESSAGES if path == "/v1/messages" else CHAT

    response = await ask(rig, path, cut=True, **body, stream=True)

    assert b"error" in response.body


async def test_ollama_streams_lines_unless_told_otherwise(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(STREAM)

    response = await ask(rig, "/api/chat", **CHAT)

    lines = [json.loads(line) for line in response.body.splitlines()]
    assert response.header(b"content-type") == b"application/x-ndjson"
    assert "".join(line["message"]["content"] for line in lines) == "Hi."
    assert (lines[-1]["done"], lines[-1]["model"]) == (True, "m:latest")
    assert json.loads(rig.backend.requests[0].body)["model"] == "m"


async def test_ollama_itself_gets_its_own_dialect_as_it_is(rig: WireRig) -> None:
    rig.gateway.publish([offer("ollama")])

    await ask(rig, "/api/chat", **CHAT | {"model": "m", "options": {"num_ctx": 7}})

    (request,) = rig.backend.requests
    assert request.target == b"/api/chat"
    assert json.loads(request.body)["options"] == {"num_ctx": 7}


async def test_a_request_to_unload_a_model_stops_its_service(rig: WireRig) -> None:
    response = await ask(rig, "/api/generate", model="m", keep_alive=0)

    assert (response.status, json.loads(response.body)["done_reason"]) == (200, "unload")
    assert rig.admission.unloaded == ["svc"]
    assert rig.backend.requests == []


@pytest.mark.parametrize("target", ["/api/tags", "/api/version", "/api/ps", "/"])
async def test_ollamas_lists_are_the_management_apps(rig: WireRig, target: str) -> None:
    client = await RawClient.connect(rig.ollama_port)

    response = await client.ask(build_request(target.encode()))

    assert response.body == b"GET /ollama%b HTTP/1.1|" % target.encode()
    await client.close()


@pytest.mark.parametrize("target", ["/service/svc/x", "/api/v1/services", "/docs", "/metrics", "/api/pull"])
async def test_nothing_else_answers_in_the_place_of_ollama(rig: WireRig, target: str) -> None:
    client = await RawClient.connect(rig.ollama_port)

    response = await client.ask(build_request(target.encode()))

    assert (response.status, response.error_code) == (404, b"unknown_path")
    await client.close()


async def test_a_refusal_is_told_in_ollamas_shape(rig: WireRig) -> None:
    rig.admission.refuse("svc", ServiceStoppedError("stopped by hand"))

    unknown = await ask(rig, "/api/chat", model="nothing", messages=[])
    stopped = await ask(rig, "/api/chat", **CHAT)

    assert (unknown.status, unknown.error_code) == (404, b"model_not_found")
    assert "nothing" in json.loads(unknown.body)["error"]
    assert (stopped.status, json.loads(stopped.body)) == (503, {"error": "stopped by hand"})


async def test_the_client_of_a_translated_stream_hears_of_a_load(rig: WireRig) -> None:
    rig.admission.hold("svc")
    rig.backend.script = answer_and_close(STREAM)
    client = await rig.client()
    await client.send(
        build_request(b"/v1/messages", JSON, body=json.dumps({**MESSAGES, "stream": True}).encode())
    )

    await client.until(b": loading svc")
    rig.admission.open("svc")
    rest = await client.until(b"0\r\n\r\n")

    assert b"event: message_start" in rest
    assert b"event: message_stop" in rest


STATUSES = {
    204: b"HTTP/1.1 204 No Content\r\n\r\n",
    304: b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
    201: b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}",
    301: b"HTTP/1.1 301 Moved\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_that_answers_nothing_is_502_and_does_not_spoil_the_connection(
    rig: WireRig, status: int, *, streams: bool
) -> None:
    rig.backend.script = answer(STATUSES[status], ok(json.dumps(ANSWER).encode()))
    client = await rig.client()

    asked = json.dumps(MESSAGES | {"stream": streams}).encode()
    refused = await client.ask(build_request(b"/v1/messages", JSON, body=asked))
    rig.backend.script = answer(ok(json.dumps(ANSWER).encode()))
    again = await client.ask(build_request(b"/v1/messages", JSON, body=json.dumps(MESSAGES).encode()))

    assert (refused.status, refused.error_code) == (502, b"upstream_invalid_response")
    assert json.loads(again.body)["content"] == [{"type": "text", "text": "Hi."}]


@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat"])
async def test_an_answer_without_the_stream_that_was_asked_for_is_502(rig: WireRig, path: str) -> None:
    rig.backend.script = answer(ok(json.dumps(ANSWER).encode(), b"content-type: application/json"))
    body = MESSAGES if path == "/v1/messages" else CHAT

    response = await ask(rig, path, **body, stream=True)

    assert (response.status, response.error_code) == (502, b"upstream_invalid_response")
    assert b"without the stream" in response.body


@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat"])
async def test_an_error_in_the_very_piece_that_ends_the_stream_is_told_once(rig: WireRig, path: str) -> None:
    broken = chunk(b'data: {"error":{"message":"out of memory"}}\n\n')
    rig.backend.script = answer_and_close(HEAD + chunk(PIECES[0]) + broken + b"0\r\n\r\n")
    body = MESSAGES if path == "/v1/messages" else CHAT

    response = await ask(rig, path, cut=True, **body, stream=True)

    assert response.body.count(b"out of memory") == 1
    assert [inference.status for inference in rig.recorder.inferences] == [599]
    assert rig.admission.outcomes == [("svc", Outcome.BROKEN)]


async def test_a_stream_is_known_to_begin_with_the_engines_answer(rig: WireRig) -> None:
    rig.backend.script = answer_and_close(STREAM)

    await ask(rig, "/v1/messages", **MESSAGES, stream=True)

    (inference,) = rig.recorder.inferences
    assert 0 <= inference.first_byte <= inference.first_token <= inference.seconds


async def test_thoughts_that_are_not_shown_are_a_sign_of_life() -> None:
    async with wire_rig() as rig:
        service = Service("svc", "any", "plain", ExternalLaunch(()), "1", stream_idle_timeout=0.2)
        rig.gateway.publish([Offer(service, PLAIN, (Model("m"),))])
        rig.ollama_port = await rig.gateway.listen("127.0.0.1", 0, frontend=OLLAMA)
        await rig.gateway.accept()

        async def think(connection: BackendConnection) -> None:
            await connection.request()
            await connection.send(HEAD)
            for _ in range(6):
                await asyncio.sleep(0.08)
                await connection.send(chunk(delta(delta={"reasoning": "Hm."})))
            await connection.send(STREAM.removeprefix(HEAD))

        rig.backend.script = think

        response = await ask(rig, "/api/chat", **CHAT, think=False)

        assert json.loads(response.body.splitlines()[-1])["done"] is True


async def test_an_engine_waits_for_a_client_that_still_reads_its_previous_answer(rig: WireRig) -> None:
    plenty = 20_000_000
    large = ok(json.dumps(ANSWER | {"padding": "x" * 200_000}).encode())

    async def talk(connection: BackendConnection) -> None:
        while (request := await connection.request()) is not None:
            if b'"stream"' not in request.body:
                await connection.send(large)
                continue
            await connection.send(HEAD)
            for _ in range(plenty // len(PIECES[0]) // 100):
                await connection.send(chunk(PIECES[0] * 100))

    rig.backend.script = talk
    client = await rig.client(receive_buffer=4096)
    client.transport.pause_reading()
    plain = build_request(b"/v1/chat/completions", JSON, body=b'{"model":"m"}')
    stream = build_request(b"/v1/messages", JSON, body=json.dumps(MESSAGES | {"stream": True}).encode())

    await client.send(plain * 20 + stream)
    (connection,) = rig.connections
    await eventually(lambda: connection.current is not None and connection.served == 20)
    exchange = exchange_of(connection)
    await eventually(lambda: isinstance(exchange.upstream, UpstreamConnection) and exchange.upstream.paused)

    assert connection.transport.get_write_buffer_size() < plenty


async def test_a_client_of_http_1_0_gets_whole_streams_and_sees_broken_ones(rig: WireRig) -> None:
    asked = build_request(b"/v1/messages", JSON, body=json.dumps(MESSAGES | {"stream": True}).encode())
    asked = asked.replace(b"HTTP/1.1", b"HTTP/1.0")
    rig.backend.script = answer_and_close(STREAM)
    whole = await rig.client()
    await whole.send(asked)

    assert (await whole.until_eof()).endswith(b'data: {"type":"message_stop"}\n\n')

    rig.backend.script = answer_and_close(HEAD + chunk(PIECES[0]))
    broken = await rig.client()
    await broken.send(asked)

    with pytest.raises(ConnectionResetError):
        await broken.until_eof()
