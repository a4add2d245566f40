"""Uploads on the wire: multipart requests, whose model stands in one of their first parts."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from loguru import logger
from tests.integration.gateway.models import chunk, error, offer
from tests.rigs.raw_backend import answer, by_hand, ok
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import WireRig, eventually, exchange_of, wire_rig

from ai_proxy.core.abilities import Abilities, Endpoint
from ai_proxy.core.errors import ServiceStoppedError

TARGET = b"/v1/audio/transcriptions"


@pytest.fixture
async def rig() -> AsyncIterator[WireRig]:
    async with wire_rig() as rig:
        rig.gateway.publish([offer(abilities=HEARING, listed=["m"])])
        yield rig


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
    "no end": b"--xyz\r\n\r\n" + b"x" * 100_000,
}


@pytest.mark.parametrize("body", BAD_UPLOADS.values(), ids=BAD_UPLOADS)
async def test_an_upload_that_does_not_begin_with_its_model_is_400(rig: WireRig, body: bytes) -> None:
    response = await rig.ask(build_request(b"/v1/audio/transcriptions", MULTIPART, method=b"POST", body=body))

    assert (response.status, error(response)["param"]) == (400, "model")


FORMS = {
    "no boundary": (b"multipart/form-data", UPLOAD % b"m"),
    "two boundaries": (b"multipart/form-data; boundary=xyz; boundary=abc", UPLOAD % b"m"),
    "another parameter's boundary": (b"multipart/form-data; x-boundary=xyz; boundary=abc", UPLOAD % b"m"),
    "a boundary without end": (b"multipart/form-data; boundary=" + b"x" * 71, UPLOAD % b"m"),
    "another parameter's name": (
        b"multipart/form-data; boundary=xyz",
        (UPLOAD % b"m").replace(b'data; name="model"', b'data; x-name="model"; name="prompt"'),
    ),
    "two names": (
        b"multipart/form-data; boundary=xyz",
        (UPLOAD % b"m").replace(b'name="model"', b'name="model"; name="prompt"'),
    ),
    "something behind a boundary": (
        b"multipart/form-data; boundary=xyz",
        b"--xyz \r\n" + (UPLOAD % b"m").removeprefix(b"--xyz\r\n"),
    ),
}


@pytest.mark.threat("a limited key", "another model's answers")
@pytest.mark.parametrize(("content_type", "body"), FORMS.values(), ids=FORMS)
async def test_a_form_that_could_be_read_in_two_ways_is_400(
    rig: WireRig, content_type: bytes, body: bytes
) -> None:
    response = await rig.ask(build_request(TARGET, b"content-type: " + content_type, body=body))

    assert (response.status, error(response)["code"]) == (400, "invalid_request")
    assert rig.backend.requests == []


@pytest.mark.threat("a limited key", "another model's answers")
@pytest.mark.parametrize("name", [b'name="model"', b"name=Model", b"name*=utf-8''model"])
async def test_an_upload_that_names_a_second_model_is_broken_off(rig: WireRig, name: bytes) -> None:
    rig.backend.script = by_hand
    second = b"RIFF\r\n--xyz\r\nContent-Disposition: form-data; %b\r\n\r\nlarge\r\n--xyz--\r\n" % name
    client = await rig.client()
    head = build_request(
        TARGET, MULTIPART, b"content-length: %d" % len(UPLOAD % b"m" + second), method=b"POST"
    )
    await client.send(head + UPLOAD % b"m")
    backend = await rig.backend.connection()
    await backend.until(UPLOAD % b"m")

    await client.send(second)

    response = await client.response(b"POST")
    assert (response.status, error(response)["code"]) == (400, "invalid_request")
    assert b"large" not in await backend.until_closed()


async def test_what_only_begins_like_a_boundary_belongs_to_the_content(rig: WireRig) -> None:
    body = (UPLOAD % b"m\r\n--xyzzy") + b"\r\n--xyz--\r\n"

    response = await rig.ask(build_request(TARGET, MULTIPART, body=body))

    assert response.status == 404
    assert r"'m\r\n--xyzzy'" in error(response)["message"]


@pytest.mark.parametrize("boundary", [b"a+b.c(d)?", b"a b", b"-" * 26 + b"123", b"x" * 70])
async def test_every_boundary_that_is_allowed_is_understood(rig: WireRig, boundary: bytes) -> None:
    body = (UPLOAD % b"m" + b"RIFF\r\n--xyz--\r\n").replace(b"xyz", boundary)
    content_type = b'Content-Type: Multipart/Form-Data; charset=utf-8; Boundary="%b"' % boundary

    response = await rig.ask(build_request(TARGET, content_type, body=body))

    assert response.status == 200
    assert rig.backend.requests[0].body == body


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
async def test_a_model_is_found_however_its_upload_is_cut(rig: WireRig, size: int) -> None:
    rig.gateway.publish([offer(abilities=HEARING, listed=["m"], models=("whisper-1",))])
    body = b"before\r\n" + UPLOAD % b"whisper-1" + b"RIFF\r\n--xyz--\r\n"
    head = build_request(TARGET, MULTIPART, b"transfer-encoding: chunked", method=b"POST")
    chunks = b"".join(chunk(body[at : at + size]) for at in range(0, len(body), size))

    response = await rig.ask(head + chunks + b"0\r\n\r\n")

    assert response.status == 200
    assert rig.backend.requests[0].body == body.replace(b"whisper-1", b"m")


async def test_an_upload_for_an_engine_that_loads_is_held_back_and_then_passed_on(rig: WireRig) -> None:
    rig.gateway.publish([offer(abilities=HEARING, models=("w",))])
    rig.admission.hold("svc")
    body = UPLOAD % b"w" + b"RIFF" * 1_000_000 + b"\r\n--xyz--\r\n"
    client = await rig.client()
    sending = asyncio.gather(client.send(build_request(TARGET, MULTIPART, body=body)))
    await rig.admission.wait_for_waiting(1)
    (connection,) = rig.connections
    await eventually(lambda: connection.reading_paused)
    assert len(exchange_of(connection).payload) < 1_000_000

    rig.gateway.publish([offer(abilities=HEARING, models=("w",), listed=["/models/whisper.gguf"])])
    rig.admission.open("svc")
    response = await client.response(b"POST")
    await sending

    assert response.status == 200
    assert rig.backend.requests[0].body == body.replace(b"w\r\n--xyz", b"/models/whisper.gguf\r\n--xyz", 1)


async def test_an_upload_whose_engine_does_not_start_is_refused_while_it_comes(rig: WireRig) -> None:
    rig.admission.hold("svc")
    client = await rig.client()
    head = build_request(TARGET, MULTIPART, b"content-length: 9000000", method=b"POST")
    await client.send(head + UPLOAD % b"m" + b"x" * 600_000)
    await rig.admission.wait_for_waiting(1)

    rig.admission.refuse("svc", ServiceStoppedError("stopped by hand"))
    response = await client.response(b"POST")

    assert (response.status, response.header(b"connection")) == (503, b"close")


async def test_a_small_upload_for_an_unknown_model_leaves_the_connection_usable(rig: WireRig) -> None:
    unknown, known = (
        build_request(TARGET, MULTIPART, body=UPLOAD % model + b"RIFF\r\n--xyz--\r\n")
        for model in (b"none", b"m")
    )
    client = await rig.client()
    await client.send(unknown[:-20])
    await eventually(lambda: rig.connections and rig.connections[0].current)
    await client.send(unknown[-20:])

    refused = await client.response(b"POST")
    again = await client.ask(known)

    assert (refused.status, refused.header(b"connection")) == (404, None)
    assert again.status == 200


async def test_an_upload_that_ends_too_early_is_never_answered_as_if_whole(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    head = build_request(TARGET, MULTIPART, b"content-length: 9000", method=b"POST")
    await client.send(head + UPLOAD % b"m")
    backend = await rig.backend.connection()
    await backend.until(UPLOAD % b"m")

    await client.close()

    await backend.until_closed()
    await rig.recorder.recorded()
    (inference,) = rig.recorder.inferences
    assert inference.status == 499


async def test_an_upload_may_be_answered_with_a_stream(rig: WireRig) -> None:
    events = b'data: {"type":"transcript.text.delta"}\n\n'
    rig.backend.script = answer(ok(events, b"content-type: text/event-stream"))

    response = await rig.ask(build_request(TARGET, MULTIPART, body=UPLOAD % b"m" + b"x\r\n--xyz--\r\n"))

    assert (response.status, response.body) == (200, events)


async def test_nothing_is_read_behind_an_upload_whose_end_is_refused(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    body = UPLOAD % b"m" + b"RIFF\r\n--xyz\r\nContent-Disp"
    framing = b"content-length: %d" % len(body)
    upload = build_request(TARGET, MULTIPART, framing, method=b"POST") + body
    await client.send(upload[:-10])
    await rig.backend.connection()
    await eventually(lambda: exchange_of(rig.connections[0]).upstream)

    errors: list[str] = []
    sink = logger.add(lambda message: errors.append(str(message)), level="ERROR")
    await client.send(upload[-10:] + build_request())
    answered = await client.until_closed()
    logger.remove(sink)

    assert answered.startswith(b"HTTP/1.1 400")
    assert answered.count(b"HTTP/1.1") == 1
    assert errors == []
