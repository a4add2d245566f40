"""What goes over the wire: requests, and the answers that the engine gives and the clients expect."""

import re
from dataclasses import dataclass
from functools import cache
from zlib import crc32

ANSWER = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","choices":['
    b'{"index":0,"message":{"role":"assistant","content":"the quick brown fox jumps over the lazy dog"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}'
)
DONE = b"data: [DONE]\n\n"
_EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":"%06d "},"finish_reason":null}]}\n\n'
)
EVENT_BYTES = len(_EVENT % 0)
KEY = "sk-bench-0123456789abcdef"
_CONTENT = re.compile(rb'"content": ?"([^"]*)"')
_HEAD = (
    b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: ai-proxy-bench\r\nAccept: */*\r\n"
    b"Authorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
)
_CHAT = (
    b'{"model":"bench","messages":[{"role":"system","content":"You are a helpful assistant."},'
    b'{"role":"user","content":"Say something about a fox and a dog, in one sentence."}],'
    b'"temperature":0.2,"max_tokens":64}'
)
_LONG_CHAT = (
    b'{"model":"bench","messages":[{"role":"system","content":"%s"},'
    b'{"role":"user","content":"Say something about all this, in one sentence."}],'
    b'"temperature":0.2,"max_tokens":64}'
)
_PARAGRAPH = rb"The quick brown fox jumps over the lazy dog; \"and again\", it says.\n"
LONG_BYTES = 34_000
"""Of a long prompt: a system prompt with tools, or a file to talk about."""
_STREAM = (
    b'{"model":"bench","messages":[{"role":"user","content":"Count."}],"stream":true,'
    b'"max_tokens":%d,"user":"%g"}'
)


def event(number: int) -> bytes:
    """Return one server-sent event of a stream; all have the same size.

    >>> words(event(7))
    b'000007 '
    """
    return _EVENT % number


def words(body: bytes | bytearray) -> bytes:
    """Return the text in a body, whatever JSON a proxy has made of the rest.

    >>> words(ANSWER)
    b'the quick brown fox jumps over the lazy dog'
    """
    return b"".join(_CONTENT.findall(body))


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and how its answer is recognised.

    Attributes:
        wire: The bytes to send.
        length: Size of the expected body.
        crc: CRC-32 of the expected body.
        words: The text of the expected body, for proxies that rewrite it; None to expect it verbatim.
    """

    wire: bytes
    length: int
    crc: int
    words: bytes | None = None


def chat(prefix: str, *, verbatim: bool = True) -> Request:
    """Return the small chat request: about 200 bytes of JSON for 290."""
    return _request(_post(prefix, "/v1/chat/completions", _CHAT), ANSWER, verbatim=verbatim)


@cache
def long_chat(prefix: str, *, verbatim: bool = True) -> Request:
    """Return a chat request with a prompt of `LONG_BYTES`.

    >>> 34_000 < len(long_chat("").wire) < 35_000
    True
    """
    body = _LONG_CHAT % (_PARAGRAPH * (LONG_BYTES // len(_PARAGRAPH)))
    return _request(_post(prefix, "/v1/chat/completions", body), ANSWER, verbatim=verbatim)


@cache
def stream(prefix: str, chunks: int, rate: float, *, verbatim: bool = True) -> Request:
    """Return a request for that many chunks, at that many a second.

    Count and rate ride in fields of the OpenAI API, so that they survive proxies that rewrite requests.
    """
    body = b"".join(event(number) for number in range(chunks)) + DONE
    return _request(_post(prefix, "/v1/chat/completions", _STREAM % (chunks, rate)), body, verbatim=verbatim)


def upload(prefix: str, payload: bytes) -> Request:
    """Return a request that sends a file and is told its checksum."""
    return _request(
        _post(prefix, "/v1/files", payload, b"application/octet-stream"),
        receipt(len(payload), crc32(payload)),
        verbatim=True,
    )


def receipt(length: int, crc: int) -> bytes:
    """Return what the engine answers to an upload.

    >>> receipt(3, 255)
    b'{"bytes":3,"crc32":"000000ff"}'
    """
    return b'{"bytes":%d,"crc32":"%08x"}' % (length, crc)


def _post(prefix: str, path: str, body: bytes, kind: bytes = b"application/json") -> bytes:
    return _HEAD % (f"{prefix}{path}".encode(), KEY.encode(), kind, len(body)) + body


def _request(wire: bytes, body: bytes, *, verbatim: bool) -> Request:
    return Request(wire, len(body), crc32(body), None if verbatim else words(body))
