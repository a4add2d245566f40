"""The Docker Engine API over HTTP, with every call bounded in time and every failure an error of ours.

aiodocker finds the engine and connects to it (contexts, `DOCKER_HOST`, TLS, ssh); the requests are made here,
because its own calls leave cancelled streams open and take a broken one for a finished one.
https://docs.docker.com/reference/api/engine/
"""

import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError

from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.runtimes.docker.errors import WANTS_TLS, explain_unreachable, explain_wants_tls
from ai_proxy.runtimes.docker.host import connect, tls_context

type Json = Mapping[str, Any]
type Params = Mapping[str, str | int]

CONNECT = 2.0
"""Longest wait for a connection, in seconds."""
QUICK = 3.0
"""Longest wait for an answer that only needs the engine's memory, in seconds."""
SLOW = 120.0
"""Longest wait for work: a container created, started, removed."""

PING = "/_ping"
"""The one path without a version: its answer tells which is spoken."""

MAX_LINE = 1024 * 1024
"""Longest JSON document in a stream, in bytes."""


class RefusedError(RuntimeFailureError):
    """The engine answered, and said no.

    Attributes:
        engine_status: HTTP status of its answer.
        message: In its own words.
    """

    def __init__(self, engine_status: int, message: str) -> None:
        super().__init__(f"Docker refused: {message}")
        self.engine_status = engine_status
        self.message = message


class DockerApi:
    """Calls and streams of one engine, which may come and go.

    Args:
        host: As in `DOCKER_HOST`; None for that variable, the current context, or the usual socket.
        certificates: Folder with `ca.pem`, `cert.pem` and `key.pem`, for TLS over TCP.
    """

    def __init__(self, host: str | None, certificates: Path | None = None) -> None:
        self._host = host
        self._certificates = certificates
        self._tls: ssl.SSLContext | None = None
        self._client: Docker | None = None
        self._version: str | None = None

    def __repr__(self) -> str:
        return f"<DockerApi {self._host or 'default'}>"

    @property
    def host(self) -> str | None:
        """URL of the engine, as far as it is known: that of a context is, once something was asked."""
        return self._host or (self._client.docker_host if self._client else None)

    async def close(self) -> None:
        """Close the connections of calls; streams are closed by those who opened them."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def get(self, path: str, **params: str | int) -> Any:
        """Return what an inspecting call answers."""
        return await self._call("GET", path, params, None, QUICK)

    async def inspect(self, container: str) -> Json | None:
        """Return what the engine knows of a container; None when there is none."""
        try:
            facts: Json = await self.get(f"/containers/{container}/json")
        except RefusedError as error:
            if error.engine_status == 404:
                return None
            raise
        return facts

    async def post(
        self, path: str, body: Json | None = None, *, limit: float = SLOW, **params: str | int
    ) -> Any:
        """Have something done, within `limit` seconds; return the answer, None when it is empty."""
        await self._negotiate()
        return await self._call("POST", path, params, body, limit)

    async def delete(self, path: str, **params: str | int) -> None:
        """Have something removed."""
        await self._negotiate()
        await self._call("DELETE", path, params, None, SLOW)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        silence: float | None = None,
        headers: Mapping[str, str] | None = None,
        **params: str | int,
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Hold a stream open, on a connection of its own.

        Args:
            method: HTTP method.
            path: Without the version.
            silence: Longest wait for the next byte, in seconds; None for no limit.
            headers: Of the request.
            params: Of the query.

        Raises:
            RuntimeFailureError: The engine refuses.
            RuntimeUnavailableError: It is away, or went away meanwhile.
        """
        await self._negotiate()
        limits = aiohttp.ClientTimeout(connect=CONNECT, sock_read=silence)
        client = self._connect()
        try:
            async with self._answer(client, method, path, params, None, limits, headers) as response:
                yield response.content
        finally:
            await client.close()

    async def documents(
        self,
        method: str,
        path: str,
        silence: float | None = None,
        headers: Mapping[str, str] | None = None,
        **params: str | int,
    ) -> AsyncGenerator[Json]:
        """Yield the JSON documents of a stream as they come; close it (`aclosing`) when leaving early."""
        async with self.stream(method, path, silence, headers, **params) as content:
            rest = b""
            async for chunk in content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(bytes.strip, lines):
                    yield json.loads(line)
                if len(rest) > MAX_LINE:
                    raise RuntimeFailureError(
                        f"Docker's answer to {path} is not what it should be: too long a line"
                    )
            if rest.strip():
                yield json.loads(rest)

    async def _negotiate(self) -> None:
        """Find out quickly whether the engine answers at all, and speak its version of the API from now on.

        Raises:
            RuntimeUnavailableError: It does not.
        """
        await self._call("GET", PING, {}, None, QUICK)

    def _connect(self) -> Docker:
        if self._certificates is not None and self._tls is None:
            self._tls = tls_context(self._certificates)
        return connect(self._host, self._tls)

    async def _call(self, method: str, path: str, params: Params, body: Json | None, limit: float) -> Any:
        if self._client is None:
            self._client = self._connect()
        limits = aiohttp.ClientTimeout(total=limit, connect=CONNECT)
        async with self._answer(self._client, method, path, params, body, limits) as response:
            self._version = response.headers.get("Api-Version", self._version)
            data = await response.read()
            return json.loads(data) if data and response.content_type == "application/json" else None

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        client: Docker,
        method: str,
        path: str,
        params: Params,
        body: Json | None,
        limits: aiohttp.ClientTimeout,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        version = f"/v{self._version}" if self._version and path != PING else ""
        url = f"{client.docker_host}{version}{path}"
        try:
            async with client.session.request(
                method, url, params=dict(params), json=body, timeout=limits, headers=headers
            ) as response:
                if response.status >= 400:
                    raise self._refusal(response.status, _message(await response.read()))
                yield response
        except (aiohttp.ClientError, OSError, DockerError) as error:  # the last by way of ssh
            raise RuntimeUnavailableError(explain_unreachable(self._host, error)) from error

    def _refusal(self, status: int, message: str) -> RuntimeFailureError:
        if WANTS_TLS in message:
            return RuntimeUnavailableError(explain_wants_tls(self._host))
        return RefusedError(status, message)


def _message(body: bytes) -> str:
    """Return the engine's words.

    >>> _message(b'{"message": "no such image: x"}'), _message(b"page not found")
    ('no such image: x', 'page not found')
    """
    try:
        return str(json.loads(body)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()[:500]
