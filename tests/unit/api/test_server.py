import asyncio
import socket
import stat
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from tests.unit.api.conftest import Api

from ai_proxy.api.middleware import client_principal, owner_principal
from ai_proxy.api.sockets import serve_unix
from ai_proxy.api.sse import EventStream, follow, stream
from ai_proxy.core.errors import StoreUnavailableError
from ai_proxy.core.logring import LogLine, LogRing


async def who_calls(scope: Scope, receive: Receive, send: Send) -> None:
    state = Request(scope).state
    await PlainTextResponse(f"{state.principal} {state.address} {state.request_id}")(scope, receive, send)


def over(path: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession("http://x", connector=aiohttp.UnixConnector(str(path)))


async def test_the_owners_socket_takes_no_other_principal(tmp_path: Path) -> None:
    path = tmp_path / "owner.sock"
    async with serve_unix(path, who_calls, owner_principal), over(path) as session:
        said = await _text(session, {"X-AI-Proxy-Principal": "mallory", "X-AI-Proxy-Client": "192.0.2.7"})

    assert said.startswith("owner local ")


@pytest.mark.parametrize(
    ("headers", "caller"),
    [
        ({"X-AI-Proxy-Principal": "key-7", "X-AI-Proxy-Client": "192.0.2.7"}, "key-7 192.0.2.7"),
        ({}, "anonymous unknown"),
    ],
)
async def test_the_clients_socket_believes_the_gateway(
    tmp_path: Path, headers: dict[str, str], caller: str
) -> None:
    path = tmp_path / "client.sock"
    async with serve_unix(path, who_calls, client_principal), over(path) as session:
        said = await _text(session, headers)

    assert said.startswith(f"{caller} ")


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123", True), ("a@b", True), ("a b", False), ("x" * 129, False)]
)
async def test_request_id_is_kept_when_it_is_sane(api: Api, given: str, *, kept: bool) -> None:
    async with api.owner.get("/health", headers={"X-Request-ID": given}) as response:
        assert (response.headers["X-Request-ID"] == given) is kept


async def test_socket_is_private_and_replaces_one_left_over(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))

    async with serve_unix(path, who_calls, owner_principal), over(path) as session:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with session.get("/") as response:
            assert response.status == 200

    assert not path.exists()


async def test_file_in_the_way_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")

    with pytest.raises(FileExistsError, match="in the way"):
        async with serve_unix(path, who_calls, owner_principal):
            pass

    assert path.read_text() == "precious"


async def test_stopping_lets_a_request_finish(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await Response("done")(scope, receive, send)

    async with asyncio.TaskGroup() as tasks, over(tmp_path / "a.sock") as session:
        server = serve_unix(tmp_path / "a.sock", slow, owner_principal)
        await server.__aenter__()
        answer = tasks.create_task(_text(session))
        await begun.wait()
        stopping = tasks.create_task(_leave(server))
        await asyncio.sleep(0)
        go_on.set()
        await stopping
        assert await answer == "done"


async def _text(session: aiohttp.ClientSession, headers: dict[str, str] | None = None) -> str:
    async with session.get("/", headers=headers) as response:
        return await response.text()


async def _leave(server: AbstractAsyncContextManager[object]) -> None:
    await server.__aexit__(None, None, None)


async def test_stopping_ends_a_stream_cleanly_and_unsubscribes(tmp_path: Path) -> None:
    ring, watched = LogRing(), Watched()

    async def logs(scope: Scope, receive: Receive, send: Send) -> None:
        await EventStream(watched.follow(ring))(scope, receive, send)

    async with over(tmp_path / "a.sock") as session:
        async with serve_unix(tmp_path / "a.sock", logs, owner_principal):
            response = await session.get("/")
            await response.content.readline()
            assert watched.now == 1
        assert await response.read() == b"\n"

    assert watched.now == 0


async def test_client_that_leaves_is_unsubscribed(tmp_path: Path) -> None:
    ring, watched = LogRing(), Watched()

    async def logs(scope: Scope, receive: Receive, send: Send) -> None:
        await EventStream(watched.follow(ring))(scope, receive, send)

    async with serve_unix(tmp_path / "a.sock", logs, owner_principal):
        async with over(tmp_path / "a.sock") as session, session.get("/") as response:
            await response.content.readline()
        async with asyncio.timeout(60):
            await watched.left.wait()

    assert watched.now == 0


async def test_silence_is_filled_with_heartbeats() -> None:
    ring = LogRing()
    stream = follow(lambda: ring.tail(1), ring.watch, lambda line: line.text, heartbeat=0.01)

    assert await anext(stream) == ": following\n\n"
    assert await anext(stream) == ": still here\n\n"
    ring.append("a line", at=0.0)
    assert await anext(stream) == "a line"
    await stream.aclose()


async def test_what_a_generator_yields_is_streamed_with_heartbeats_until_it_is_closed() -> None:
    go_on, closed = asyncio.Event(), asyncio.Event()

    async def items() -> AsyncGenerator[str]:
        try:
            await go_on.wait()
            yield "first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    events = stream(items(), str.upper, heartbeat=0.01)

    assert await anext(events) == ": following\n\n"
    assert await anext(events) == ": still here\n\n"
    go_on.set()
    while (said := await anext(events)) == ": still here\n\n":
        pass
    assert said == "FIRST"
    assert await anext(events) == ": still here\n\n"
    await events.aclose()
    assert closed.is_set()


async def test_a_stream_breaks_with_the_error_of_its_source() -> None:
    async def items() -> AsyncGenerator[str]:
        yield "first"
        raise StoreUnavailableError("locked")

    events = stream(items(), str)
    await anext(events)
    await anext(events)

    with pytest.raises(StoreUnavailableError):
        await anext(events)


class Watched:
    """Counts those who watch a ring."""

    def __init__(self) -> None:
        self.now = 0
        self.left = asyncio.Event()

    def follow(self, ring: LogRing) -> AsyncGenerator[str]:
        def watch(watcher: Callable[[LogLine], None]) -> Callable[[], None]:
            stop = ring.watch(watcher)
            self.now += 1

            def leave() -> None:
                stop()
                self.now -= 1
                self.left.set()

            return leave

        return follow(lambda: ring.tail(10), watch, lambda line: line.text)
