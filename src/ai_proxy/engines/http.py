"""Asks engines over HTTP for their readiness and their models."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import aiohttp
from loguru import logger

from ai_proxy.core.abilities import Abilities
from ai_proxy.core.ports import Engine, Model, Probe
from ai_proxy.core.service import Service, Upstream
from ai_proxy.engines.answers import MAX_VALUES, Answer, has_too_many_values, printable
from ai_proxy.engines.listing import read_models
from ai_proxy.engines.profile import EngineDescriptor, Profile

PROBE_TIMEOUT = 3.0
"""Longest wait for an answer about readiness or models, in seconds."""

MAX_BODY = 4 * 1024 * 1024
"""Most bytes read of such an answer."""


class HttpEngine:
    """An engine, as its profile says; implements `core.ports.Engine`."""

    def __init__(
        self, profile: Profile, session: aiohttp.ClientSession, *, timeout: float = PROBE_TIMEOUT
    ) -> None:
        self._profile = profile
        self._session = session
        self._timeout = timeout
        self._too_long: set[str] = set()  # services whose list was too long when it was last read

    def __repr__(self) -> str:
        return f"<HttpEngine {self.name}>"

    @property
    def name(self) -> str:
        """The engine's name as services declare it."""
        return self._profile.name

    @property
    def abilities(self) -> Abilities:
        """What it can do of the APIs that clients speak."""
        return self._profile.abilities

    async def probe(self, service: Service, upstream: Upstream) -> Probe:
        """Ask for readiness: health path, then model list. Never raises; answers within a few seconds."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._ask(service, upstream)
        except TimeoutError:
            return Probe(ready=False, detail=f"no answer within {self._timeout:g} s")
        except Exception as error:  # noqa: BLE001 - the port promises an answer, whatever is wrong
            return Probe(ready=False, detail=explain(error))

    async def models(self, service: Service, upstream: Upstream) -> Sequence[Model]:
        """Return the models it lists; empty when the list cannot be read."""
        try:
            for listing in self._profile.listings:
                async with asyncio.timeout(self._timeout):
                    answer = await self._get(service, upstream, listing.path)
                models = read_models((listing,), {listing.path: answer})
                if models is not None:
                    self._too_long.discard(service.id)
                    return models
                if len(answer.body) > MAX_BODY or has_too_many_values(answer.body):
                    self._complain(service, listing.path)
        except Exception as error:  # noqa: BLE001 - the port promises an answer, whatever is wrong
            logger.bind(service=service.id).debug(
                "{} does not list its models: {}", self.name, explain(error)
            )
        return ()

    def _complain(self, service: Service, path: str) -> None:
        """Log, once, that a list of models is too long to be read."""
        if service.id not in self._too_long:
            self._too_long.add(service.id)
            logger.bind(service=service.id).warning(
                "the models that {} lists on {} are not offered: the list has more than {} MB or {} values",
                *(service.id, path, MAX_BODY >> 20, MAX_VALUES),
            )

    async def _ask(self, service: Service, upstream: Upstream) -> Probe:
        if service.health_path is None:
            return await _connect(upstream)
        answer = await self._get(service, upstream, service.health_path)
        if answer.status not in self._profile.alive or (self._profile.errors_with_200 and answer.has_error):
            return Probe(ready=False, detail=answer.complaint)
        if self._profile.listings:
            answer = await self._get(service, upstream, self._profile.listings[-1].path)
            if answer.status >= 500:
                return Probe(ready=False, detail=answer.complaint)
        return Probe(ready=True, detail="ready")

    async def _get(self, service: Service, upstream: Upstream, path: str) -> Answer:
        async with self._reaching(upstream) as session:
            return await get(session, upstream, path, service.api_key)

    @asynccontextmanager
    async def _reaching(self, upstream: Upstream) -> AsyncIterator[aiohttp.ClientSession]:
        """Yield a session that can connect there: aiohttp ties a Unix socket to a session of its own."""
        if upstream.unix_path is None:
            yield self._session
            return
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(upstream.unix_path)) as session:
            yield session


def create_engines(
    descriptors: Iterable[EngineDescriptor], session: aiohttp.ClientSession
) -> dict[str, Engine]:
    """Return what asks each engine, by name.

    Args:
        descriptors: Of the engines.
        session: Shared by all of them; closed by the caller.
    """
    engines: dict[str, Engine] = {}
    for one in descriptors:
        try:
            engines[one.name] = (one.create or HttpEngine)(one.profile, session)
        except Exception as error:  # noqa: BLE001 - a plug-in that raises must not take the others down
            logger.opt(exception=error).error("cannot create the engine {}; it serves nothing", one.name)
    return engines


async def _connect(upstream: Upstream) -> Probe:
    if upstream.unix_path is None:
        _, writer = await asyncio.open_connection(upstream.host, upstream.port, ssl=upstream.tls or None)
    else:
        _, writer = await asyncio.open_unix_connection(upstream.unix_path)
    writer.close()
    return Probe(ready=True, detail="accepts connections")


async def get(
    session: aiohttp.ClientSession, upstream: Upstream, path: str, api_key: str | None = None
) -> Answer:
    """Return the answer to a GET, whatever its status; redirects are not followed, for safety.

    Raises:
        aiohttp.ClientError: It cannot be reached, or does not answer in HTTP.
        OSError: It cannot be reached.
        ValueError: The address is none.
    """
    headers = {"Accept-Encoding": "identity"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    began = time.monotonic()
    async with session.get(upstream.url + path, headers=headers, allow_redirects=False) as response:
        body = await _read(response.content)
        found = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, body, found, time.monotonic() - began)


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Return the body, up to a limit."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            break
    return bytes(body)


def explain(error: Exception) -> str:
    """Return why an engine did not answer, in a few words.

    >>> explain(ConnectionRefusedError(111, "Connection refused"))
    'connection refused'
    >>> explain(aiohttp.ServerDisconnectedError())
    'it closed the connection without an answer'
    >>> explain(KeyError("id"))
    "KeyError: 'id'"
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return "it closed the connection without an answer"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "it does not answer in HTTP"
        case OSError() if error.strerror:
            return error.strerror.lower()
        case aiohttp.ClientError() | OSError() | ValueError() if str(error):
            return printable(str(error)[:200])
        case _:
            return printable(f"{type(error).__name__}: {error}"[:200]).rstrip(": ")
