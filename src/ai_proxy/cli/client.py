"""The running server, over its control socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from ai_proxy.cli.output import UserError
from ai_proxy.dialects import sse
from ai_proxy.platform.run_folder import base_folder, find_instance


class Server:
    """The API of a running instance."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, **query: str | float) -> dict[str, Any]:
        """Send GET and return the response."""
        return await self._request("GET", path, query)

    async def post(self, path: str, **query: str | float) -> dict[str, Any]:
        """Send POST and return the response."""
        return await self._request("POST", path, query)

    async def follow(self, path: str, **query: str | float) -> AsyncIterator[bytes]:
        """Yield the data of each server-sent event."""
        events = sse.Parser()
        async with self._session.get(path, params=query) as response:
            await _raise_for_problem(response)
            async for data in response.content.iter_any():
                for event in events.feed(data):
                    yield event.data

    async def _request(self, method: str, path: str, query: dict[str, str | float]) -> dict[str, Any]:
        async with self._session.request(method, path, params=query) as response:
            await _raise_for_problem(response)
            answer: dict[str, Any] = await response.json()
            return answer


async def _raise_for_problem(response: aiohttp.ClientResponse) -> None:
    if response.status < HTTPStatus.BAD_REQUEST:
        return
    if response.content_type != "application/problem+json":
        raise UserError(f"the server answered {response.status} {response.reason}", "bad_answer")
    raise problem_error(await response.json(content_type=None))


def problem_error(problem: dict[str, Any]) -> UserError:
    """Return the error for a problem body (RFC 9457) of the server.

    >>> print(problem_error({"code": "service_failed", "detail": "it crashed", "log_tail": ["no memory"]}))
    it crashed
      | no memory
    """
    lines = [problem["detail"], *(f"  | {line}" for line in problem.get("log_tail") or ())]
    return UserError("\n".join(lines), problem["code"])


def service_path(service_id: str, action: str = "") -> str:
    """Return the API path of a service, or of one of its sub-resources.

    >>> service_path("llama3", "start"), service_path("odd/name")
    ('/api/v1/service/llama3/start', '/api/v1/service/odd%2Fname')
    """
    path = f"/api/v1/service/{quote(service_id, safe='')}"
    return f"{path}/{action}" if action else path


@asynccontextmanager
async def connect(socket: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Connect to a socket of the running instance, without time limits.

    Raises:
        UserError: The connection was lost.
    """
    endless = aiohttp.ClientTimeout(total=None, sock_read=None)
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession("http://ai-proxy", connector=connector, timeout=endless) as session:
        try:
            yield session
        except aiohttp.ClientError as error:
            raise UserError(f"the connection to ai-proxy was lost ({error})", "connection_lost") from error


def ask[T](run_dir: Path | None, port: int | None, question: Callable[[Server], Awaitable[T]]) -> T:
    """Connect to the running instance, and return the result of `question`.

    Args:
        run_dir: Base of the run directories, as given on the command line.
        port: Port of the instance, where several run.
        question: Sends the requests.

    Raises:
        RunDirError: No instance runs, or several do and none was chosen.
        UserError: The instance answered with a problem, or the connection was lost.
    """
    folder = find_instance(base_folder(run_dir), port)

    async def answer() -> T:
        async with connect(folder / "control.sock") as session:
            return await question(Server(session))

    return asyncio.run(answer())
