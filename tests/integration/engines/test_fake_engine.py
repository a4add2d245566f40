"""The shipped fake misbehaves as it says, so that other tests may rely on it."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from ai_proxy.core.service import ExternalLaunch, Service, Upstream
from ai_proxy.engines.http import HttpEngine
from ai_proxy.engines.llamacpp import LLAMACPP
from ai_proxy.testing.fake_engine import Behaviour, running_fake_engine


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_it_answers_and_streams_a_chat(session: aiohttp.ClientSession) -> None:
    with running_fake_engine(Behaviour.OK, "--words", "3") as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with session.post(url, json={}) as response:
            answer = await response.json()
        async with session.post(url, json={"stream": True}) as response:
            events = [line[6:] async for line in response.content if line.startswith(b"data: ")]
    assert answer["choices"][0]["message"]["content"] == "word-1 word-2 word-3"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == "word-1 word-2 word-3 "
    assert events[-1] == b"[DONE]\n"


async def test_it_echoes_the_request_as_it_came(session: aiohttp.ClientSession) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"in "
        yield b"chunks"

    with running_fake_engine() as port:
        url = f"http://127.0.0.1:{port}/echo/a?b=c"
        async with session.put(url, data=body(), headers={"X-Mine": "1"}) as response:
            echo = await response.json()
    assert (echo["method"], echo["path"], echo["body"]) == ("PUT", "/echo/a?b=c", "in chunks")
    assert ["X-Mine", "1"] in echo["headers"]


async def test_it_is_ready_once_it_has_loaded(session: aiohttp.ClientSession) -> None:
    engine = HttpEngine(LLAMACPP.profile, session)
    with running_fake_engine(Behaviour.SLOW_LOAD, "--seconds", "1.0") as port:
        upstream = Upstream("127.0.0.1", port)
        service = Service("s", "generic", "llamacpp", ExternalLaunch((upstream,)), config_hash="1")
        first = await engine.probe(service, upstream)
        assert first.detail == "loading model"
        async with asyncio.timeout(60.0):
            while not (await engine.probe(service, upstream)).ready:  # noqa: ASYNC110 - as the proxy does
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("behaviour", [Behaviour.DIE_MID_STREAM, Behaviour.STALL])
async def test_a_stream_breaks_off_in_the_middle(
    session: aiohttp.ClientSession, behaviour: Behaviour
) -> None:
    received = bytearray()

    async def read_all(port: int) -> None:
        async with asyncio.timeout(1.0), session.get(f"http://127.0.0.1:{port}/stream") as response:
            async for chunk in response.content.iter_any():
                received.extend(chunk)

    with (
        running_fake_engine(behaviour) as port,
        pytest.raises((aiohttp.ClientPayloadError, TimeoutError)),
    ):
        await read_all(port)
    assert received == b"x" * 40


async def test_it_crashes_after_so_many_requests_but_not_by_being_watched(
    session: aiohttp.ClientSession,
) -> None:
    with running_fake_engine(Behaviour.CRASH_AFTER, "--requests", "2") as port:
        for path in ("/health", "/v1/models", "/bytes/1", "/status/404"):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                await response.read()
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://127.0.0.1:{port}/health")


async def test_it_can_be_healthy_and_hang_all_the_same(session: aiohttp.ClientSession) -> None:
    with running_fake_engine(Behaviour.HANG, "--healthy") as port:
        async with session.get(f"http://127.0.0.1:{port}/health") as response:
            assert response.status == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.get(f"http://127.0.0.1:{port}/bytes/1")
