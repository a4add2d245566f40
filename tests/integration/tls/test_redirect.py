"""What plain HTTP gets beside TLS, on the wire."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.integration.tls.redirecting import empty_gateway

from ai_proxy.core.settings import Limits

PATIENCE = 60.0
REQUEST = b"GET /v1/models HTTP/1.1\r\nHost: gpu.example.com\r\n\r\n"
CLOSING = REQUEST[:-2] + b"Connection: close\r\n\r\n"
LIMITS = Limits(head_timeout=0.1, max_head=8192, shutdown_timeout=0.2)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with empty_gateway(LIMITS) as gateway:
        yield await gateway.redirect("127.0.0.1", 0, 443, {"token": b"token.thumbprint"})


async def ask(port: int, *parts: bytes) -> bytes:
    """Send a request in parts, and return everything that comes until the end; nothing when it is cut off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_client_is_sent_on_to_https(port: int) -> None:
    answer = await ask(port, CLOSING)

    assert answer.startswith(
        b"HTTP/1.1 308 Permanent Redirect\r\nlocation: https://gpu.example.com/v1/models\r\n"
    )


async def test_a_challenge_is_answered(port: int) -> None:
    answer = await ask(port, CLOSING.replace(b"/v1/models", b"/.well-known/acme-challenge/token"))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\ntoken.thumbprint")


@pytest.mark.threat("somebody on the network", "the renewal of the certificate")
async def test_a_challenge_is_answered_beside_hundreds_of_connections_that_say_nothing(port: int) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
    try:
        answer = await ask(port, CLOSING.replace(b"/v1/models", b"/.well-known/acme-challenge/token"))
    finally:
        for _, writer in silent:
            writer.close()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_head_is_read_byte_by_byte(port: int) -> None:
    answer = await ask(port, *(bytes([byte]) for byte in CLOSING))

    assert answer.startswith(b"HTTP/1.1 308")


async def test_a_connection_may_ask_again(port: int) -> None:
    answer = await ask(port, REQUEST + CLOSING)

    assert answer.count(b"HTTP/1.1 308") == 2


async def test_a_large_body_is_neither_held_nor_does_it_destroy_the_answer(port: int) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gpu\r\nContent-Length: 3000000\r\n\r\n"

    answer = await ask(port, head, b"x" * 3_000_000)

    assert answer.startswith(b"HTTP/1.1 308")
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
async def test_a_head_that_is_too_long_is_refused(port: int, end: bytes) -> None:
    answer = await ask(port, b"GET / HTTP/1.1\r\nHost: gpu\r\nX: " + b"x" * LIMITS.max_head + end)

    assert answer.startswith(b"HTTP/1.1 431")


async def test_a_slow_client_is_told_and_cut_off(port: int) -> None:
    answer = await ask(port, b"GET / HTTP/1.1\r\nHost: g")

    assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1",
        b"GET / HTTP/2.0\r\nHost: gpu",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        b"GET / HTTP/1.1\r\nHost: gpu\r\n x: folded",
        b"GET / HTTP/1.1\r\nHost : gpu",
        b"CONNECT gpu:443 HTTP/1.1\r\nHost: gpu",
    ],
)
async def test_what_is_not_plainly_a_request_is_refused(port: int, head: bytes) -> None:
    answer = await ask(port, head + b"\r\nConnection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"location" not in answer


async def test_the_end_cuts_everybody_off() -> None:
    async with empty_gateway() as gateway:
        port = await gateway.redirect("127.0.0.1", 0, 443, {})
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")

    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", port)
    writer.close()
