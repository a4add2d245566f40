"""How the end of a response is told, and what of it a client may see."""

import asyncio

import pytest
from tests.rigs.raw_backend import BackendConnection, Script, answer, answer_and_close, by_hand, ok
from tests.rigs.raw_http import TruncatedError, build_request
from tests.rigs.wire_rig import WireRig, eventually

from ai_proxy.core.service import Outcome

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NOT_ASKED_FOR = ok(b"not asked for")

WHOLE = {
    "length": (ok(b"hello"), b"hello"),
    "no body": (ok(b""), b""),
    "chunks": (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "chunks with extensions and trailers": (CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"hello"),
    "no chunk": (CHUNKED + b"0\r\n\r\n", b""),
    "coding in capitals": (CHUNKED.replace(b"chunked", b"CHUNKED") + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "length with a space": (b"HTTP/1.1 200 OK\r\nContent-Length: 5 \r\n\r\nhello", b"hello"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "interim": (CONTINUE + ok(b"hello"), b"hello"),
    "several interim": (CONTINUE + HINTS + HINTS + ok(b"hello"), b"hello"),
}


def in_pieces(response: bytes, size: int) -> Script:
    async def script(connection: BackendConnection) -> None:
        while await connection.request():
            for start in range(0, len(response), size):
                await connection.send(response[start : start + size])
                await asyncio.sleep(0)

    return script


@pytest.mark.parametrize("size", [10_000, 7, 1])
@pytest.mark.parametrize(("response", "body"), WHOLE.values(), ids=WHOLE)
async def test_a_whole_response_arrives_and_the_connection_is_kept(
    rig: WireRig, response: bytes, body: bytes, size: int
) -> None:
    rig.backend.script = in_pieces(response, size)
    client = await rig.client()

    for _ in range(3):
        answered = await client.ask(build_request())
        assert (answered.status, answered.body) == (200, body)
    assert len(rig.backend.connections) == 1


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n"])
@pytest.mark.parametrize("piece", [b"y", b"\n", b"\r", b"\0"])
async def test_a_chunk_that_comes_in_pieces_arrives_as_it_is(rig: WireRig, piece: bytes, end: bytes) -> None:
    content = piece * 100_000
    rig.backend.script = in_pieces(CHUNKED + b"%x\r\n%b\r\n%b" % (len(content), content, end), 1000)
    client = await rig.client()

    for _ in range(2):
        assert (await client.ask(build_request())).body == content
    assert len(rig.backend.connections) == 1


@pytest.mark.threat("a backend", "answers that impersonate the proxy")
@pytest.mark.parametrize("size", [10_000, 7])
async def test_a_trailer_never_becomes_a_header(rig: WireRig, size: int) -> None:
    trailers = b"X-Late: 1\r\nX-Request-ID: late\r\n"
    rig.backend.script = in_pieces(CHUNKED + b"5\r\nhello\r\n0\r\n%b\r\n" % trailers, size)

    response = await rig.ask(build_request())

    assert (response.status, response.body) == (200, b"hello")
    assert response.header(b"x-late") is None


async def test_a_connection_may_bring_any_number_of_interim_responses_one_by_one(rig: WireRig) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n" % (b"x" * 30_000)
    rig.backend.script = answer(hints + ok(b"hello"))
    client = await rig.client()

    for _ in range(4):
        assert (await client.ask(build_request())).body == b"hello"
    assert len(rig.backend.connections) == 1


async def test_no_interim_response_reaches_the_client(rig: WireRig) -> None:
    rig.backend.script = answer(CONTINUE + HINTS + ok(b"hello"))
    client = await rig.client()

    await client.send(build_request())

    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_chunks_are_forwarded_as_they_come(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")

    await backend.send(CHUNKED)
    await client.until(b"\r\n\r\n")
    for piece in (b"3\r\nabc\r\n", b"8;x=y\r\ntorn", b" off\r\n", b"0\r\nX-T: 1\r\n\r\n"):
        await backend.send(piece)
        assert await client.until(piece) == piece


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\nETag: x\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_a_status_without_a_body_ends_with_its_head(rig: WireRig, response: bytes) -> None:
    rig.backend.script = answer(response)
    client = await rig.client()

    for _ in range(3):
        answered = await client.ask(build_request())
        assert answered.first_line == response.split(b"\r\n")[0]
    assert len(rig.backend.connections) == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 500", b"Transfer-Encoding: chunked", b"X-None: 1"])
async def test_the_response_to_a_head_request_has_no_body(rig: WireRig, framing: bytes) -> None:
    rig.backend.script = answer(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    client = await rig.client()

    for _ in range(3):
        answered = await client.ask(build_request(method=b"HEAD"))
        assert answered.status == 200
    assert answered.header(b"content-length") == (b"500" if b"500" in framing else None)


def until_close(media_type: bytes, body: bytes, size: int = 10_000) -> Script:
    """Frame a body by closing the connection, and send it in pieces."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n\r\n" % media_type

    async def script(connection: BackendConnection) -> None:
        await connection.request()
        for piece in (head, *(body[i : i + size] for i in range(0, len(body), size))):
            await connection.send(piece)

    return script


EVENTS = b"text/event-stream"
TOKEN = b'data: {"choices":[{"delta":{"content":"[DONE]"},"finish_reason":null}]}\n\n'
ENDED = {
    "JSON": (b"application/json", b'{"a": [1, 2]}\n'),
    "an error as JSON": (b"application/problem+json; charset=utf-8", b'{"title": "no"}'),
    "DONE": (EVENTS, TOKEN * 3 + b"data: [DONE]\n\n"),
    "DONE without its line end": (EVENTS, TOKEN + b"data: [DONE]"),
    "carriage returns": (EVENTS, (TOKEN + b"data:[DONE]\n\n").replace(b"\n", b"\r\n")),
    "a reason to finish": (EVENTS, TOKEN + TOKEN.replace(b"null", b'"stop"')),
    "usage": (EVENTS, TOKEN + b'data: {"choices":[],"usage":{"prompt_tokens":7}}\n\n'),
    "Anthropic's": (EVENTS, b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
    "OpenAI's responses": (EVENTS, b'data: {"type":"response.completed","response":{}}\n\n'),
    "llama.cpp's own": (
        EVENTS,
        b'data: {"content":"a"}\n\ndata: {"content":"","stop":true}\n\n',
    ),
    "Ollama's": (b"application/x-ndjson", b'{"response":"a","done":false}\n{"done":true}\n'),
}
BROKEN_OFF = {
    "no JSON": (b"application/json", b""),
    "half of JSON": (b"application/json", b'{"a": [1, 2]'),
    "no event": (EVENTS, b""),
    "events": (EVENTS, TOKEN * 3),
    "half of DONE": (EVENTS, TOKEN + b"data: [DON"),
    "half of the last event": (EVENTS, TOKEN + b'data: {"choices":[{"finish_reason":"stop"'),
    "an end in the middle": (EVENTS, b"data: [DONE]\n\n" + TOKEN),
    "Anthropic's first": (
        EVENTS,
        b'event: message_start\ndata: {"message":{"usage":{}}}\n\n',
    ),
    "Ollama's": (b"application/x-ndjson", b'{"response":"a","done":false}\n'),
}


@pytest.mark.parametrize("size", [10_000, 1])
@pytest.mark.parametrize(("media_type", "body"), ENDED.values(), ids=ENDED)
async def test_a_body_until_close_whose_end_is_known_becomes_chunks(
    rig: WireRig, media_type: bytes, body: bytes, size: int
) -> None:
    rig.backend.script = until_close(media_type, body, size)
    client = await rig.client()

    for _ in range(2):
        answered = await client.ask(build_request())
        assert answered.header(b"transfer-encoding") == b"chunked"
        assert answered.body == body
    assert rig.admission.outcomes == [("svc", Outcome.OK)] * 2


@pytest.mark.threat("a backend", "a truncated answer that looks complete")
@pytest.mark.parametrize("size", [10_000, 1])
@pytest.mark.parametrize(("media_type", "body"), BROKEN_OFF.values(), ids=BROKEN_OFF)
async def test_a_body_until_close_that_breaks_off_is_visibly_truncated(
    rig: WireRig, media_type: bytes, body: bytes, size: int
) -> None:
    rig.backend.script = until_close(media_type, body, size)
    client = await rig.client()

    with pytest.raises(TruncatedError):
        await client.ask(build_request())

    assert rig.admission.outcomes == [("svc", Outcome.BROKEN)]


@pytest.mark.threat("a backend", "a truncated answer that looks complete")
@pytest.mark.parametrize(
    "head", [b"Content-Type: text/html", b"X: y", b"Content-Type: application/json\r\nContent-Encoding: gzip"]
)
async def test_a_body_until_close_whose_end_cannot_be_known_ends_so_for_the_client(
    rig: WireRig, head: bytes
) -> None:
    rig.backend.script = answer_and_close(b"HTTP/1.1 200 OK\r\n%b\r\n\r\nhello" % head)
    client = await rig.client()

    answered = await client.ask(build_request())

    assert (answered.header(b"transfer-encoding"), answered.header(b"connection")) == (None, b"close")
    assert answered.body == b"hello"


async def test_a_body_until_close_whose_end_cannot_be_known_ends_in_a_reset_when_it_is_reset(
    rig: WireRig,
) -> None:
    rig.backend.script = answer_and_close(b"HTTP/1.1 200 OK\r\n\r\nhello", reset=True)
    client = await rig.client()

    await client.send(build_request())

    with pytest.raises(ConnectionResetError):
        await client.until_eof()


@pytest.mark.threat("a backend", "response smuggling")
@pytest.mark.parametrize(
    ("method", "response", "body"),
    [
        (b"GET", ok(b"hello"), b"hello"),
        (b"GET", ok(b""), b""),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
    ],
    ids=["length", "empty", "head", "204", "304"],
)
@pytest.mark.parametrize("surplus", [NOT_ASKED_FOR, b"x", b"\x00\x00", b"HTTP/1.1 200 OK\r\n"])
async def test_surplus_in_the_same_read_is_dropped_with_its_connection(
    rig: WireRig, method: bytes, response: bytes, body: bytes, surplus: bytes
) -> None:
    rig.backend.script = answer(response + surplus)
    client = await rig.client()

    for _ in range(3):
        answered = await client.ask(build_request(method=method))
        assert answered.body == body
        assert len(answered.headers) <= 2
    assert len(rig.backend.connections) == 3


async def test_surplus_within_a_later_read_is_dropped_with_its_connection(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")
    await backend.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
    await client.until(b"he")

    await backend.send(b"llo" + NOT_ASKED_FOR)

    assert await client.until(b"llo") == b"llo"
    rig.backend.script = answer(ok(b"second"))
    assert (await client.ask(build_request())).body == b"second"


@pytest.mark.threat("a backend", "response smuggling")
@pytest.mark.parametrize("surplus", [NOT_ASKED_FOR, b"x", b"\r\n", b"0\r\n\r\n", b"x\r\n\r\n"])
async def test_surplus_after_chunks_never_reaches_the_client(rig: WireRig, surplus: bytes) -> None:
    rig.backend.script = answer(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + surplus)

    response = await rig.ask(build_request())

    assert (response.status, response.error_code) == (502, b"upstream_invalid_response")


@pytest.mark.parametrize("surplus", [NOT_ASKED_FOR, b"x", b"\r\n", b"x\r\n\r\n"])
async def test_surplus_after_chunks_that_began_ends_the_message_visibly(rig: WireRig, surplus: bytes) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(build_request())
    backend = await rig.backend.connection()
    await backend.until(b"\r\n\r\n")
    await backend.send(CHUNKED)
    await client.until(b"\r\n\r\n")

    await backend.send(b"5\r\nhello\r\n0\r\n\r\n" + surplus)

    assert await client.until_closed() == b""


@pytest.mark.threat("a backend", "response smuggling")
@pytest.mark.parametrize("response", [ok(b"hello"), CHUNKED + b"0\r\n\r\n"], ids=["length", "chunks"])
async def test_surplus_on_an_idle_connection_ends_it(rig: WireRig, response: bytes) -> None:
    rig.backend.script = answer(response)
    client = await rig.client()
    await client.ask(build_request())
    backend = rig.backend.connections[0]

    await backend.send(NOT_ASKED_FOR)

    await eventually(lambda: not rig.gateway.shared.pools.of(rig.admission.upstreams["svc"]).idle)
    assert (await client.ask(build_request())).status == 200
    assert len(rig.backend.connections) == 2


@pytest.mark.parametrize("line", [b"Connection: close", b"connection: Close, X-A"])
async def test_a_backend_that_closes_is_not_used_again(rig: WireRig, line: bytes) -> None:
    rig.backend.script = answer(ok(b"x", line))
    client = await rig.client()

    for _ in range(3):
        response = await client.ask(build_request())
        assert response.header(b"connection") is None
    assert len(rig.backend.connections) == 3


async def test_a_large_response_arrives_whole(rig: WireRig) -> None:
    body = bytes(range(256)) * 40_000
    rig.backend.script = answer(ok(body))

    assert (await rig.ask(build_request())).body == body
