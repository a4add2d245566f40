"""The plain HTTP listener on the wire."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.rigs.wire_rig import eventually

from ai_proxy.tls.redirect import MAX_CONNECTIONS, MAX_HEAD, Site, serve_redirect

PATIENCE = 60.0
REQUEST = b"GET /v1/models HTTP/1.1\r\nHost: gpu.example.com\r\n\r\n"


@pytest.fixture
def site() -> Site:
    return Site(443, {"token": b"token.thumbprint"}, head_timeout=0.2)


@pytest.fixture
async def port(site: Site) -> AsyncIterator[int]:
    async with serve_redirect("127.0.0.1", 0, site) as port:
        yield port


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


async def test_sends_on_and_closes(port: int) -> None:
    answer = await ask(port, REQUEST)

    assert answer.startswith(
        b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://gpu.example.com/v1/models\r\n"
    )
    assert b"\r\nConnection: close\r\n" in answer


async def test_answers_a_challenge(port: int) -> None:
    answer = await ask(
        port, b"GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: gpu.example.com\r\n\r\n"
    )

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\ntoken.thumbprint")


async def test_reads_a_head_byte_by_byte(port: int) -> None:
    answer = await ask(port, *(bytes([byte]) for byte in REQUEST))

    assert answer.startswith(b"HTTP/1.1 308")


async def test_only_the_first_request_is_answered(port: int) -> None:
    answer = await ask(port, REQUEST + REQUEST)

    assert answer.count(b"HTTP/1.1") == 1


async def test_a_body_does_not_destroy_the_answer(port: int) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gpu\r\nContent-Length: 3000000\r\n\r\n"

    answer = await ask(port, head, b"x" * 3_000_000)

    assert answer.startswith(b"HTTP/1.1 308")


async def test_a_head_that_does_not_end_is_refused(port: int) -> None:
    answer = await ask(port, b"GET / HTTP/1.1\r\nHost: gpu\r\nX: " + b"x" * MAX_HEAD)

    assert answer.startswith(b"HTTP/1.1 431")


async def test_a_head_that_is_too_long_is_refused(port: int) -> None:
    answer = await ask(port, b"GET / HTTP/1.1\r\nHost: gpu\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 431")


async def test_a_slow_client_is_told_and_cut_off(port: int) -> None:
    answer = await ask(port, b"GET / HTTP/1.1\r\nHost: g")

    assert answer.startswith(b"HTTP/1.1 408")


async def test_a_client_that_leaves_is_forgotten(port: int, site: Site) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()

    await eventually(lambda: not site.connections)


async def test_too_many_clients_are_turned_away_and_there_is_room_again() -> None:
    site = Site(443, head_timeout=60)
    async with serve_redirect("127.0.0.1", 0, site) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        await eventually(lambda: len(site.connections) == MAX_CONNECTIONS)

        assert await ask(port, REQUEST) == b""
        for _, writer in held:
            writer.close()
        await eventually(lambda: not site.connections)

        assert (await ask(port, REQUEST)).startswith(b"HTTP/1.1 308")


async def test_the_end_cuts_everybody_off(site: Site) -> None:
    async with serve_redirect("127.0.0.1", 0, site) as port:
        client = asyncio.gather(ask(port, b"GET / HTTP/1.1\r\n"))
        await eventually(lambda: site.connections)

    assert list(await client) == [b""]
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", port)
