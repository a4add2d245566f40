"""Whatever clients ask of models, engines answer, and however it is cut: whole answers, or visibly none."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.conftest import examples, impatiently
from tests.fuzz.test_requests import (
    indices,
    mutate,
    mutations,
    parse,
    pieces,
    send_and_listen,
    send_in_pieces,
)
from tests.rigs.raw_backend import BackendConnection, Script, answer_and_close, ok
from tests.rigs.raw_http import Message, RawClient, TruncatedError, build_request, read_response
from tests.rigs.wire_rig import WireRig

from ai_proxy.core.abilities import EVERYTHING, Abilities, Endpoint, Rule, Treatment
from ai_proxy.core.ports import Model
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import ExternalLaunch, Service
from ai_proxy.gateway.routing.endpoints import OLLAMA

ID = b"X-Request-ID: fixed"
JSON = b"Content-Type: application/json"
FORM = b'Content-Type: multipart/form-data; boundary="a+b"'
CHAT, MESSAGES, UPLOAD = b"/v1/chat/completions", b"/v1/messages", b"/v1/audio/transcriptions"
MODEL = Abilities("Able", EVERYTHING - {Endpoint.MESSAGES}, {"top_k": Rule(Treatment.CLAMP, 0, 9)})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(target: bytes, content_type: bytes, body: bytes, size: int) -> bytes:
    parts = [chunk(body[at : at + size]) for at in range(0, len(body), size)]
    head = build_request(target, ID, content_type, b"Transfer-Encoding: chunked", method=b"POST")
    return head + b"".join(parts) + b"0\r\n\r\n"


def form(model: bytes) -> bytes:
    part = b'--a+b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    file = b'--a+b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--a+b--\r\n'
    return part % (b"language", b"--a+bc") + part % (b"model", model) + file % (b"RIFF\r\n--a+" * 99)


CHATS = (
    b'{"model":"m"}',
    b'{"model":"alias","top_k":70}',
    b'{"model":"none"}',
    b'{"model":',
    b'{"Model":"m"}',
)
MESSAGE = b'{"model":"alias","max_tokens":9,"messages":[{"role":"user","content":"\\u00e9"}]}'
REQUESTS = (
    *(build_request(CHAT, ID, JSON, body=body) for body in CHATS),
    build_request(b"http://test" + CHAT + b"?a=b", ID, JSON, body=CHATS[0]),
    build_request(MESSAGES, ID, JSON, body=MESSAGE),
    chunked(CHAT, JSON, CHATS[1], 3),
    *(build_request(UPLOAD, ID, FORM, body=form(model)) for model in (b"m", b"alias", b"none")),
    *(chunked(UPLOAD, FORM, form(model), 50) for model in (b"m", b"alias")),
    build_request(UPLOAD, ID, b"Content-Type: multipart/form-data", body=form(b"m")),
    build_request(b"/service/svc/x", ID, body=b"between"),
)

slow = settings(
    max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def said(body: bytes) -> bytes:
    """Return the answer to a chat in which the model says what it was asked."""
    message = {"role": "assistant", "content": body.decode("utf-8", "replace")}
    return json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}).encode()


def play(rig: WireRig, script: Script) -> None:
    """Have the backend do something else from now on."""
    rig.backend.script = script
    rig.gateway.shared.pools.of(rig.admission.upstreams["svc"]).sweep(0)


async def parrot(connection: BackendConnection) -> None:
    while (request := await connection.request()) is not None:
        await connection.send(ok(said(request.first_line + b"|" + request.body)))


@pytest.fixture
def asked(
    fuzzed: tuple[asyncio.Runner, WireRig], patience: float
) -> Iterator[tuple[asyncio.Runner, WireRig]]:
    runner, rig = fuzzed

    async def prepare() -> None:
        rig.ollama_port = await rig.gateway.listen("127.0.0.1", 0, frontend=OLLAMA)
        await rig.gateway.accept()

    runner.run(prepare())
    service = Service(
        "svc",
        "any",
        "any",
        ExternalLaunch(()),
        "hash",
        aliases={"alias": "m"},
        models=("m",),
        response_timeout=patience,
        stream_idle_timeout=patience,
    )
    rig.gateway.publish([Offer(service, MODEL, (Model("m"),))])
    play(rig, parrot)
    yield runner, rig
    assert rig.admission.in_flight == {"svc": 0}
    assert rig.problems == []


@slow
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6), indices)
def test_cuts_between_reads_change_nothing(
    asked: tuple[asyncio.Runner, WireRig], chosen: list[bytes], cuts: list[int]
) -> None:
    runner, rig = asked
    data = b"".join(chosen)

    whole = runner.run(send_in_pieces(rig, [data], len(chosen)))
    cut = runner.run(send_in_pieces(rig, pieces(data, cuts), len(chosen)))

    assert cut == whole


@impatiently
@slow
@given(st.lists(st.tuples(st.sampled_from(REQUESTS), mutations), min_size=20, max_size=40))
def test_a_mutated_request_ends_in_well_formed_answers_or_a_close(
    asked: tuple[asyncio.Runner, WireRig], cases: list[tuple[bytes, list[tuple[str, int, bytes]]]]
) -> None:
    runner, rig = asked

    async def run() -> None:
        requests = [mutate(request, changes) for request, changes in cases]
        for received in await asyncio.gather(*(send_and_listen(rig, request) for request in requests)):
            for response in await parse(received):
                assert response.status in (100, 200) or response.error_code is not None

    runner.run(run())
    assert rig.problems == []


def events(*data: bytes) -> tuple[bytes, ...]:
    return tuple(b"data: %b\n\n" % one for one in data)


DELTAS = events(
    b'{"choices":[{"index":0,"delta":{"content":"Hel"}}]}',
    b'{"choices":[{"index":0,"delta":{"content":"lo"}}]}',
    b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    b"[DONE]",
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
STREAMS = {
    "chunked": STREAM_HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"".join(map(chunk, DELTAS))
    + b"0\r\n\r\n",
    "length": STREAM_HEAD + b"Content-Length: %d\r\n\r\n" % len(b"".join(DELTAS)) + b"".join(DELTAS),
}
WHOLE = ok(said(b"Hello"), b"Content-Type: application/json")
ASKED = {
    CHAT: b'{"model":"m","stream":true}',
    MESSAGES: b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"}],"stream":true}',
    b"/api/chat": b'{"model":"m","messages":[{"role":"user","content":"a"}]}',
}
targets = st.sampled_from(list(ASKED))
versions = st.sampled_from([b"1.0", b"1.1"])


async def listen(rig: WireRig, target: bytes, version: bytes, *, loads: bool) -> Message | None:
    """Return the answer if it came whole."""
    if loads:
        rig.admission.hold("svc")
    client = await RawClient.connect(rig.ollama_port if target.startswith(b"/api") else rig.port)
    request = build_request(target, JSON, body=ASKED[target]).replace(b"HTTP/1.1", b"HTTP/" + version, 1)
    try:
        await client.send(request)
        if loads:
            await rig.admission.wait_for_waiting(1)
            await asyncio.sleep(rig.gateway.shared.heartbeat * 1.5)
            rig.admission.open("svc")
        return await asyncio.wait_for(read_response(client.reader, b"POST"), 60)
    except (TruncatedError, EOFError, ConnectionError):
        return None
    finally:
        await client.close()


def ends_well(target: bytes, response: Message) -> bool:
    ends = {CHAT: b"data: [DONE]\n\n", MESSAGES: b'data: {"type":"message_stop"}\n\n'}
    return response.body.endswith(ends.get(target, b"}\n")) and b'"error"' not in response.body


@slow
@given(targets, versions, st.sampled_from(list(STREAMS)), st.booleans(), st.lists(st.integers(0, 999)))
def test_a_stream_comes_whole_however_it_is_cut(
    asked: tuple[asyncio.Runner, WireRig],
    target: bytes,
    version: bytes,
    framing: str,
    loads: bool,
    cuts: list[int],
) -> None:
    runner, rig = asked

    async def script(connection: BackendConnection) -> None:
        await connection.request()
        for piece in pieces(STREAMS[framing], cuts):
            await connection.send(piece)
            await asyncio.sleep(0)
        await connection.until_closed()

    play(rig, script)

    response = runner.run(listen(rig, target, version, loads=loads))

    assert response is not None
    assert response.status == 200
    assert ends_well(target, response)


@slow
@given(
    targets,
    versions,
    st.sampled_from([*STREAMS.values(), WHOLE]),
    st.integers(0, 999),
    st.booleans(),
    st.booleans(),
)
def test_a_stream_that_was_cut_short_is_never_whole(
    asked: tuple[asyncio.Runner, WireRig],
    target: bytes,
    version: bytes,
    answer: bytes,
    at: int,
    reset: bool,
    loads: bool,
) -> None:
    runner, rig = asked
    play(rig, answer_and_close(answer[: at % len(answer)], reset=reset))
    counted = len(rig.recorder.inferences)

    response = runner.run(listen(rig, target, version, loads=loads))

    assert response is None or response.error_code is not None
    assert len(rig.recorder.inferences) == counted + 1


@impatiently
@slow
@given(
    st.lists(
        st.tuples(targets, versions, st.sampled_from([*STREAMS.values(), WHOLE]), mutations),
        min_size=10,
        max_size=20,
    )
)
def test_a_mutated_answer_is_told_refused_or_truncated(
    asked: tuple[asyncio.Runner, WireRig],
    cases: list[tuple[bytes, bytes, bytes, list[tuple[str, int, bytes]]]],
) -> None:
    runner, rig = asked
    answers = iter([mutate(answer, changes) for _, _, answer, changes in cases])

    async def script(connection: BackendConnection) -> None:
        await connection.request()
        await connection.send(next(answers))
        await connection.until_closed()

    async def run() -> None:
        play(rig, script)
        for seen in await asyncio.gather(*(listen(rig, t, v, loads=False) for t, v, _, _ in cases)):
            assert seen is None or len(seen.all(b"x-request-id")) == 1

    runner.run(run())
    assert rig.problems == []
