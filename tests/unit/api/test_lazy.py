import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import httpx
import pytest
from loguru import logger
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from ai_proxy.api.lazy import LazyApplication
from ai_proxy.api.middleware import Middleware, owner_principal


async def _hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


class Build:
    """Builds an application when it may, and counts how often."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.may_end = threading.Event()
        self.count = 0
        self._outcomes = list(outcomes)

    def __call__(self) -> ASGIApp:
        self.count += 1
        assert self.may_end.wait(10)
        if self._outcomes and (error := self._outcomes.pop(0)) is not None:
            raise error
        return Starlette(routes=[Route("/", _hello)])


@pytest.fixture
def build() -> Build:
    return Build()


def _lazy(build: Callable[[], ASGIApp]) -> ASGIApp:
    lazy = LazyApplication(build, {"/health": lambda: PlainTextResponse("alive")})
    return Middleware(lazy, owner_principal)


async def _ask(app: ASGIApp, path: str = "/", method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lazy") as client:
        return await client.request(method, path)


async def test_requests_that_come_at_once_wait_for_one_build_while_the_event_loop_goes_on(
    build: Build,
) -> None:
    app = _lazy(build)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_ask(app)) for _ in range(3)]
        assert (await _ask(app, "/health")).text == "alive"
        build.may_end.set()

    assert [one.result().text for one in asked] == ["hello"] * 3
    assert (await _ask(app)).text == "hello"
    assert build.count == 1


async def test_what_needs_no_application_builds_none(build: Build) -> None:
    app = _lazy(build)

    for method in ("GET", "HEAD"):
        assert (await _ask(app, "/health", method)).status_code == 200

    assert build.count == 0


async def test_other_methods_on_such_a_path_are_the_applications(build: Build) -> None:
    build.may_end.set()

    response = await _ask(_lazy(build), "/health", "DELETE")

    assert (response.status_code, build.count) == (404, 1)


async def test_a_request_that_is_given_up_does_not_take_the_others_along(build: Build) -> None:
    app = _lazy(build)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await _ask(app)
    build.may_end.set()

    assert (await _ask(app)).text == "hello"
    assert build.count == 1


async def test_a_failed_build_is_answered_and_logged_and_tried_again_with_the_next_request() -> None:
    build = Build(ImportError("no such module"))
    build.may_end.set()
    app = _lazy(build)
    records: list[str] = []
    sink = logger.add(records.append, level="ERROR", format="{message} {exception}", diagnose=False)

    failed = await _ask(app)
    again = await _ask(app)
    logger.remove(sink)

    assert (failed.status_code, failed.headers["Content-Type"]) == (503, "application/problem+json")
    problem = failed.json()
    assert problem["code"] == failed.headers["X-AI-Proxy-Error"] == "management_unavailable"
    assert problem["request_id"] == failed.headers["X-Request-ID"]
    assert "no such module" not in problem["detail"]
    assert [("cannot build" in record, "no such module" in record) for record in records] == [(True, True)]
    assert again.text == "hello"


def test_serving_loads_nothing_that_only_the_application_needs() -> None:
    heavy = {
        "fastapi",
        "starlette.requests",
        "uvicorn",
        "prometheus_client",
        "typer",
        "acme",
        "opentelemetry",
    }
    script = f"import ai_proxy.app, sys; print(sorted({heavy!r} & sys.modules.keys()))"

    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"
