"""The Docker Engine API over HTTP, with a time limit on every call and domain errors for every failure.

aiodocker finds the engine and connects to it (contexts, `DOCKER_HOST`, TLS, ssh); the requests are made here,
because its own calls leave cancelled streams open and take a broken one for a finished one.
https://docs.docker.com/reference/api/engine/
"""

import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiodocker import Docker, DockerError
from loguru import logger

from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.settings import DockerSettings
from ai_proxy.runtimes.docker.answers import Container, ContainerId, ContainerWait, Refusal
from ai_proxy.runtimes.docker.errors import (
    WANTS_TLS,
    explain_certificates,
    explain_host,
    explain_unreachable,
    explain_wants_tls,
)

type Params = Mapping[str, str | int]

CONNECT = 2.0
"""Longest wait for a connection, in seconds."""
QUICK = 3.0
"""Longest wait for an answer that only needs the engine's memory, in seconds."""
SLOW = 120.0
"""Longest wait for work: a container created, started, removed."""

TCP = re.compile(r"(tcp|http|https)://")

PING = "/_ping"
"""The one path without a version: its answer names the version to use."""

MAX_LINE = 1024 * 1024
"""Longest JSON document in a stream, in bytes."""


class RefusedError(RuntimeFailureError):
    """The engine refused a call.

    Attributes:
        engine_status: HTTP status of its answer.
        message: The engine's own words.
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
        """URL of the engine, as far as known; that of a context is known after the first call."""
        return self._host or (self._client.docker_host if self._client else None)

    async def close(self) -> None:
        """Close the connections of calls; who opened a stream closes it."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def get[T](self, path: str, kind: type[T], **params: str | int) -> T:
        """Return the answer to an inspecting call."""
        return _decode(await self._call("GET", path, params, None, QUICK), kind, path)

    async def find[T](self, path: str, kind: type[T]) -> T | None:
        """Return the answer to an inspecting call; None when the thing does not exist."""
        try:
            return await self.get(path, kind)
        except RefusedError as error:
            if error.engine_status == 404:
                return None
            raise

    async def inspect(self, container: str) -> Container | None:
        """Return what the engine knows of a container; None when there is none."""
        return await self.find(f"/containers/{container}/json", Container)

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Create a container; return its id."""
        await self._negotiate()
        path = "/containers/create"
        return _decode(await self._call("POST", path, {"name": name}, body, SLOW), ContainerId, path).id

    async def wait(self, container: str) -> int:
        """Return the exit code of a container once it has ended."""
        path = f"/containers/{container}/wait"
        async with self.stream("POST", path, condition="not-running") as answer:
            data = await answer.read()
        if not data:
            raise RuntimeUnavailableError(f"Docker ended while it was asked for {path}: see its log")
        return _decode(data, ContainerWait, path).status_code

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, limit: float = SLOW, **params: str | int
    ) -> None:
        """Send a command; wait at most `limit` seconds."""
        await self._negotiate()
        await self._call("POST", path, params, body, limit)

    async def delete(self, path: str, **params: str | int) -> None:
        """Remove something."""
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
        """Open a stream on a connection of its own.

        Args:
            method: HTTP method.
            path: Without the version.
            silence: Longest wait for the next byte, in seconds; None for no limit.
            headers: Of the request.
            params: Of the query.

        Raises:
            RuntimeFailureError: The engine refuses.
            RuntimeUnavailableError: The engine is away, or went away meanwhile.
        """
        await self._negotiate()
        limits = aiohttp.ClientTimeout(connect=CONNECT, sock_read=silence)
        client = self._connect()
        try:
            async with self._answer(client, method, path, params, None, limits, headers) as response:
                yield response.content
        finally:
            await client.close()

    async def documents[T](
        self,
        method: str,
        path: str,
        kind: type[T],
        silence: float | None = None,
        headers: Mapping[str, str] | None = None,
        **params: str | int,
    ) -> AsyncGenerator[T]:
        """Yield the JSON documents of a stream as they come; close it (`aclosing`) when leaving early.

        A line that cannot be read is left out: those after it count. The first one of a stream is logged.
        """
        async with self.stream(method, path, silence, headers, **params) as content:
            rest, logged = b"", False
            async for chunk in content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(bytes.strip, lines):
                    try:
                        document = _decode(line, kind, path)
                    except RuntimeFailureError as error:
                        logger.log("DEBUG" if logged else "WARNING", "{}", error.detail)
                        logged = True
                    else:
                        yield document
                if len(rest) > MAX_LINE:
                    raise RuntimeFailureError(
                        f"Docker's answer to {path} has a line of over {MAX_LINE} bytes"
                    )
            if rest.strip():
                yield _decode(rest, kind, path)

    async def _negotiate(self) -> None:
        """Check quickly that the engine answers, and use its version of the API.

        Raises:
            RuntimeUnavailableError: It does not.
        """
        await self._call("GET", PING, {}, None, QUICK)

    def _connect(self) -> Docker:
        if self._certificates is not None and self._tls is None:
            self._tls = tls_context(self._certificates)
        return connect(self._host, self._tls)

    async def _call(
        self, method: str, path: str, params: Params, body: Mapping[str, Any] | None, limit: float
    ) -> bytes:
        if self._client is None:
            self._client = self._connect()
        limits = aiohttp.ClientTimeout(total=limit, connect=CONNECT)
        async with self._answer(self._client, method, path, params, body, limits) as response:
            self._version = response.headers.get("Api-Version", self._version)
            return await response.read()

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        client: Docker,
        method: str,
        path: str,
        params: Params,
        body: Mapping[str, Any] | None,
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
        return msgspec.json.decode(body, type=Refusal).message.strip()
    except (ValueError, RecursionError):
        return body.decode(errors="replace").strip()[:500]


def _decode[T](data: bytes, kind: type[T], path: str) -> T:
    """Read an answer.

    Raises:
        RuntimeFailureError: It does not have the documented form.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise RuntimeFailureError(
            f"Docker's answer to {path} is not as documented ({error}): check the engine and its version"
        ) from error


def client_folder(environ: Mapping[str, str]) -> Path:
    """Return where the `docker` command keeps its settings and logins."""
    return Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def fill_in(settings: DockerSettings, environ: Mapping[str, str]) -> DockerSettings:
    """Return the settings completed from the environment, as the `docker` command does.

    >>> fill_in(DockerSettings(), {"DOCKER_HOST": "tcp://box:2375", "DOCKER_CERT_PATH": "/certs"}).host
    'tcp://box:2375'
    >>> fill_in(DockerSettings(), {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}).certificates
    PosixPath('/certs')
    """
    certificates = settings.certificates
    if certificates is None and environ.get("DOCKER_TLS_VERIFY"):
        certificates = Path(environ.get("DOCKER_CERT_PATH") or client_folder(environ))
    return replace(
        settings, host=settings.host or environ.get("DOCKER_HOST") or None, certificates=certificates
    )


def tls_context(folder: Path) -> ssl.SSLContext:
    """Return the TLS settings: the CA of the engine, and our certificate.

    Raises:
        RuntimeUnavailableError: The folder does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except OSError as error:
        raise RuntimeUnavailableError(explain_certificates(folder, error)) from error
    return context


def connect(host: str | None, tls: ssl.SSLContext | None = None) -> Docker:
    """Return a client of the engine; nothing is sent yet.

    Args:
        host: As in `DOCKER_HOST`; None for that variable, the current context, or the usual socket.
        tls: TLS settings, for TCP.

    Raises:
        RuntimeUnavailableError: The engine cannot be located.
    """
    try:
        if host is None or tls is None or not TCP.match(host):
            return Docker(host)
        return Docker(TCP.sub("https://", host, count=1), ssl_context=tls)
    except (AssertionError, ValueError, ImportError, OSError, DockerError) as error:
        raise RuntimeUnavailableError(explain_host(host, error)) from error
