import asyncio
import threading

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from ai_proxy.api.late import LateApplication


async def _hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def _make() -> Starlette:
    return Starlette(routes=[Route("/", _hello)])


async def _ask(app: ASGIApp, path: str = "/") -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://late") as client:
        return (await client.get(path)).text


async def test_requests_wait_for_the_application_while_the_event_loop_goes_on() -> None:
    late, may_come = LateApplication({}), threading.Event()

    def make() -> ASGIApp:
        may_come.wait()
        return _make()

    async with asyncio.TaskGroup() as group:
        coming = group.create_task(late.come(make))
        early = group.create_task(_ask(late))
        _, waiting = await asyncio.wait({coming, early}, timeout=0)
        may_come.set()

    assert waiting == {coming, early}
    assert early.result() == await _ask(late) == "hello"


async def test_a_request_that_is_given_up_does_not_take_the_others_along() -> None:
    late = LateApplication({})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await _ask(late)

    await late.come(_make)

    assert await _ask(late) == "hello"


async def test_what_needs_no_application_is_answered_before_it_comes_and_by_it_from_then_on() -> None:
    late = LateApplication({"/health": PlainTextResponse("early")})

    assert await _ask(late, "/health") == "early"

    await late.come(lambda: PlainTextResponse("in its place"))

    assert await _ask(late, "/health") == "in its place"


async def test_nobody_is_left_waiting_for_an_application_that_cannot_be_made() -> None:
    late = LateApplication({})

    def make() -> ASGIApp:
        raise ImportError("no such module")

    with pytest.raises(ImportError, match="no such module"):
        await late.come(make)

    with pytest.raises(asyncio.CancelledError):
        await _ask(late)
