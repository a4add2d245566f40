"""The running server, over its control socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from ai_proxy.cli.output import UserError
from ai_proxy.platform.run_folder import base_folder, find_instance


class Server:
    """Asks a running instance."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, **query: str | float) -> dict[str, Any]:
        """Return what is there."""
        return await self._ask("GET", path, query)

    async def post(self, path: str, **query: str | float) -> dict[str, Any]:
        """Have something done, and return what came of it."""
        return await self._ask("POST", path, query)

    async def follow(self, path: str, **query: str | float) -> AsyncIterator[bytes]:
        """Yield the data of each server-sent event."""
        async with self._session.get(path, params=query) as response:
            await _raise_for_problem(response)
            async for line in response.content:
                if line.startswith(b"data:"):
                    yield line[5:].strip()

    async def _ask(self, method: str, path: str, query: dict[str, str | float]) -> dict[str, Any]:
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
    """Return the error that tells a user of a problem of the server's.

    >>> print(problem_error({"code": "service_failed", "detail": "it crashed", "log_tail": ["no memory"]}))
    it crashed
      | no memory
    """
    lines = [problem["detail"], *(f"  | {line}" for line in problem.get("log_tail") or ())]
    return UserError("\n".join(lines), problem["code"])


def service_path(service_id: str, action: str = "") -> str:
    """Return the path of a service in the API, or of something about it.

    >>> service_path("llama3", "start"), service_path("odd/name")
    ('/api/v1/service/llama3/start', '/api/v1/service/odd%2Fname')
    """
    path = f"/api/v1/service/{quote(service_id, safe='')}"
    return f"{path}/{action}" if action else path


def ask[T](run_dir: Path | None, port: int | None, question: Callable[[Server], Awaitable[T]]) -> T:
    """Put a question to the running instance and return its answer.

    Args:
        run_dir: Base of the run directories, as chosen on the command line.
        port: Of the instance, where several run.
        question: Asks it.

    Raises:
        RunDirError: None runs, or several do and none was chosen.
        UserError: It answered with a problem, or went away.
    """
    folder = find_instance(base_folder(run_dir), port)
    return asyncio.run(_ask(folder / "control.sock", question))


async def _ask[T](path: Path, question: Callable[[Server], Awaitable[T]]) -> T:
    endless = aiohttp.ClientTimeout(total=None, sock_read=None)
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession("http://ai-proxy", connector=connector, timeout=endless) as session:
        try:
            return await question(Server(session))
        except aiohttp.ClientError as error:
            raise UserError(f"the connection to ai-proxy was lost ({error})", "connection_lost") from error
