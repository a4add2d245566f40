"""How engines are reached."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from loguru import logger

from ai_proxy.core.ports import Model
from ai_proxy.core.service import ExternalLaunch, Service, Upstream
from ai_proxy.engines.answers import MAX_VALUES
from ai_proxy.engines.http import HttpEngine
from ai_proxy.engines.llamacpp import LLAMACPP
from ai_proxy.engines.openai import OPENAI


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    """A backend on a Unix socket, under a path of its own, that wants a key for its model list."""

    async def health(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/login"})

    async def models(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer secret":
            return web.json_response({"error": "no"}, status=401)
        if "/long/" in request.path:
            return web.json_response({"data": [{"id": "m"}] * MAX_VALUES})
        return web.json_response({"data": [{"id": "m"}]})

    app = web.Application()
    app.add_routes([web.get("/llm/moved", health), web.get("/llm/v1/models", models)])
    app.add_routes([web.get("/llm/long/v1/models", models)])
    runner = web.AppRunner(app)
    await runner.setup()
    path = str(tmp_path / "backend.sock")
    await web.UnixSite(runner, path).start()
    yield Upstream("localhost", 80, base_path="/llm", unix_path=path)
    await runner.cleanup()


@pytest.fixture
async def engine() -> AsyncIterator[HttpEngine]:
    async with aiohttp.ClientSession() as session:
        yield HttpEngine(OPENAI.profile, session)


def service(upstream: Upstream, health_path: str | None, api_key: str | None = None) -> Service:
    launch = ExternalLaunch((upstream,))
    return Service("s", "openai", "openai", launch, "1", api_key=api_key, health_path=health_path)


async def test_unix_sockets_base_paths_and_keys_are_respected(engine: HttpEngine, upstream: Upstream) -> None:
    asked = service(upstream, "/v1/models", api_key="secret")
    assert (await engine.probe(asked, upstream)).ready
    assert list(await engine.models(asked, upstream)) == [Model("m")]


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
async def test_a_list_of_models_that_is_too_long_is_logged_once(
    engine: HttpEngine, upstream: Upstream
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    long = replace(upstream, base_path="/llm/long")
    asked = service(long, "/v1/models", api_key="secret")

    listed = [await engine.models(asked, long) for _ in range(2)]

    logger.remove(sink)
    assert listed == [(), ()]
    (line,) = lines
    assert line.startswith("the models that s lists on /v1/models are not offered")


async def test_a_refusal_is_told_in_its_own_words(upstream: Upstream) -> None:
    async with aiohttp.ClientSession() as session:
        probe = await HttpEngine(LLAMACPP.profile, session).probe(service(upstream, "/v1/models"), upstream)
    assert (probe.ready, probe.detail) == (False, "no")


async def test_a_remote_api_that_wants_another_key_is_up(engine: HttpEngine, upstream: Upstream) -> None:
    assert (await engine.probe(service(upstream, "/v1/models"), upstream)).ready


async def test_a_redirect_is_not_followed_and_not_taken_for_health(
    engine: HttpEngine, upstream: Upstream
) -> None:
    probe = await engine.probe(service(upstream, "/moved"), upstream)
    assert (probe.ready, probe.detail) == (False, "it answers with status 302")


async def test_without_a_health_path_connecting_to_the_socket_is_enough(
    engine: HttpEngine, upstream: Upstream
) -> None:
    assert (await engine.probe(service(upstream, None), upstream)).ready
