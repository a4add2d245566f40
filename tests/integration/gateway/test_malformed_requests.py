"""What is not well-formed HTTP/1.1, or ambiguous, gets a 400 and the end of the connection."""

import pytest
from tests.rigs.raw_backend import by_hand
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import WireRig

POST = b"POST /service/svc/x HTTP/1.1\r\nHost: test\r\n"
GET = b"GET /service/svc/x HTTP/1.1\r\nHost: test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED_HEADS = {
    "length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length with a plus": POST + b"Content-Length: +5\r\n\r\nabcde",
    "negative length": POST + b"Content-Length: -5\r\n\r\n",
    "list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nabcde",
    "huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nabcde",
    "empty length": POST + b"Content-Length: \r\n\r\n",
    "length with a letter": POST + b"Content-Length: 5a\r\n\r\nabcde",
    "folded header": GET + b"A: b\r\n c\r\n\r\n",
    "folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"GET /service/svc/x HTTP/1.1\nHost: test\n\n",
    "bare line feed in a header": b"GET /service/svc/x HTTP/1.1\r\nHost: test\nA: b\r\n\r\n",
    "bare carriage return in a value": GET + b"A: b\rc\r\n\r\n",
    "space before the colon": GET + b"A : b\r\n\r\n",
    "no colon": GET + b"Abc\r\n\r\n",
    "no header name": GET + b": b\r\n\r\n",
    "space before the first header": b"GET /service/svc/x HTTP/1.1\r\n Host: test\r\n\r\n",
    "no host": b"GET /service/svc/x HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: other\r\n\r\n",
    "nul in a value": GET + b"A: b\x00c\r\n\r\n",
    "control byte in a value": GET + b"A: b\x01c\r\n\r\n",
    "delete in a value": GET + b"A: b\x7fc\r\n\r\n",
    "nul in a name": GET + b"A\x00: b\r\n\r\n",
    "separator in a name": GET + b"A(b): c\r\n\r\n",
    "nul in the target": b"GET /service/svc/\x00 HTTP/1.1\r\nHost: test\r\n\r\n",
    "control byte in the target": b"GET /service/svc/\x1f HTTP/1.1\r\nHost: test\r\n\r\n",
    "raw UTF-8 in the target": "GET /service/svc/é HTTP/1.1\r\nHost: test\r\n\r\n".encode(),
    "space in the target": b"GET /service/svc/a b HTTP/1.1\r\nHost: test\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "compressed chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks that are not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding that contains chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /service/svc/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown method": b"FETCH /service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n",
    "method in lower case": b"get /service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 in the request line": b"GET /service/svc/x HTTP/2.0\r\nHost: test\r\n\r\n",
    "HTTP/1.2": b"GET /service/svc/x HTTP/1.2\r\nHost: test\r\n\r\n",
    "HTTP/0.9": b"GET /service/svc/x\r\n\r\n",
    "version in lower case": b"GET /service/svc/x http/1.1\r\nHost: test\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "prose": b"hello there, proxy\r\n\r\n",
    "binary": bytes(range(256)),
    "connect": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n\x16\x03\x01",
}

REFUSED_CHUNKS = {
    "letters": b"zz\r\nabc\r\n0\r\n\r\n",
    "negative": b"-1\r\nabc\r\n0\r\n\r\n",
    "plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "trailing space": b"3 \r\nabc\r\n0\r\n\r\n",
    "leading space": b" 3\r\nabc\r\n0\r\n\r\n",
    "none": b"\r\nabc\r\n0\r\n\r\n",
    "overflow": b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
    "bare line feed after the size": b"3\nabc\r\n0\r\n\r\n",
    "bare line feed after the data": b"3\r\nabc\n0\r\n\r\n",
    "more data than said": b"3\r\nabcdef\r\n0\r\n\r\n",
    "nul in an extension": b"3;a\x00\r\nabc\r\n0\r\n\r\n",
    "line feed in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "bad trailer": b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
}


async def assert_refused(rig: WireRig, request: bytes) -> None:
    client = await rig.client()
    smuggled = build_request(b"/service/svc/smuggled")

    await client.send(request + smuggled)

    response = await client.response()
    assert (response.status, response.error_code) == (400, b"malformed_request")
    assert response.header(b"connection") == b"close"
    assert response.header(b"content-type") == b"application/problem+json"
    assert await client.until_closed() == b"", "something was served after the refusal"
    assert b"/smuggled" not in [seen.target for seen in rig.backend.requests]


@pytest.mark.threat("somebody on the network", "request smuggling")
@pytest.mark.parametrize("request_bytes", REFUSED_HEADS.values(), ids=REFUSED_HEADS)
async def test_refuses_a_bad_head(rig: WireRig, request_bytes: bytes) -> None:
    await assert_refused(rig, request_bytes)
    assert rig.backend.requests == []


async def test_a_head_request_that_cannot_be_read_is_refused_without_a_body(rig: WireRig) -> None:
    client = await rig.client()

    await client.send(b"HEAD /service/svc/x HTTP/1.1\r\nHost: test\r\nbad header\r\n\r\n")

    assert (await client.response(b"HEAD")).status == 400
    assert await client.until_closed() == b""


@pytest.mark.parametrize("chunks", REFUSED_CHUNKS.values(), ids=REFUSED_CHUNKS)
async def test_refuses_bad_chunks_of_a_buffered_body(rig: WireRig, chunks: bytes) -> None:
    json = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n")
    await assert_refused(rig, json + chunks)
    assert rig.backend.requests == []


@pytest.mark.threat("somebody on the network", "request smuggling")
@pytest.mark.parametrize("chunks", REFUSED_CHUNKS.values(), ids=REFUSED_CHUNKS)
async def test_refuses_bad_chunks_of_a_streamed_body(rig: WireRig, chunks: bytes) -> None:
    await assert_refused(rig, CHUNKED + chunks)


async def test_a_bad_chunk_ends_an_upload_that_is_under_way(rig: WireRig) -> None:
    rig.backend.script = by_hand
    client = await rig.client()
    await client.send(CHUNKED + b"3\r\nabc\r\n")
    upload = await rig.backend.connection()
    assert await upload.until(b"3\r\nabc\r\n")

    await client.send(b"zz\r\n")

    assert (await client.response()).status == 400
    assert b"0\r\n\r\n" not in await upload.until_closed()
