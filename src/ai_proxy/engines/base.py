"""What all engines have in common: they answer over HTTP, tell their readiness and list their models."""

import asyncio
import json
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from ai_proxy.core.abilities import EVERYTHING, Abilities, Modality
from ai_proxy.core.ports import Model, Probe
from ai_proxy.core.service import Service, Upstream

PROBE_TIMEOUT = 3.0
"""Longest wait for an answer about readiness or models, in seconds."""

MAX_BODY = 4 * 1024 * 1024
"""Most bytes read of such an answer."""

CHAT = frozenset({"chat", "stream"})

ANYTHING = Abilities("OpenAI API", EVERYTHING, modalities=frozenset(Modality))
"""Of software that is not known to lack anything: it is asked, and says itself what it cannot do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What sets one engine apart from the others.

    Attributes:
        name: As services declare it.
        models_path: Lists the models in OpenAI's form; None when it does not.
        owned_by: What its model list gives as `owned_by`; tells engines apart.
        capabilities: As in `core.ports.Engine`.
        alive: Statuses of the health path that mean it can take requests.
        abilities: What it can do of the APIs that clients speak.
    """

    name: str
    models_path: str | None = "/v1/models"
    owned_by: str | None = None
    capabilities: frozenset[str] = CHAT
    alive: Container[int] = range(200, 300)
    abilities: Abilities = ANYTHING


class HttpEngine:
    """An engine, as its profile says; implements `core.ports.Engine`."""

    def __init__(
        self, profile: Profile, session: aiohttp.ClientSession, *, timeout: float = PROBE_TIMEOUT
    ) -> None:
        self._profile = profile
        self._session = session
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<HttpEngine {self.name}>"

    @property
    def name(self) -> str:
        """The engine's name as services declare it."""
        return self._profile.name

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do."""
        return self._profile.capabilities

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
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Probe(ready=False, detail=explain(error))

    async def models(self, service: Service, upstream: Upstream) -> Sequence[Model]:
        """Return the models it lists; empty when it cannot tell."""
        if self._profile.models_path is None:
            return ()
        try:
            async with asyncio.timeout(self._timeout):
                status, body = await self._get(service, upstream, self._profile.models_path)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return ()
        return parse_models(body) if status == 200 else ()

    async def _ask(self, service: Service, upstream: Upstream) -> Probe:
        if service.health_path is None:
            return await _connect(upstream)
        status, body = await self._get(service, upstream, service.health_path)
        if status not in self._profile.alive:
            return Probe(ready=False, detail=complaint(status, body))
        if self._profile.models_path is not None:
            status, body = await self._get(service, upstream, self._profile.models_path)
            if status >= 500:
                return Probe(ready=False, detail=complaint(status, body))
        return Probe(ready=True, detail="ready")

    async def _get(self, service: Service, upstream: Upstream, path: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {service.api_key}"} if service.api_key else {}
        async with (
            self._reaching(upstream) as session,
            session.get(upstream.url + path, headers=headers, allow_redirects=False) as response,
        ):
            return response.status, await _read(response.content)

    @asynccontextmanager
    async def _reaching(self, upstream: Upstream) -> AsyncIterator[aiohttp.ClientSession]:
        """Yield a session that can connect there: aiohttp ties a Unix socket to a session of its own."""
        if upstream.unix_path is None:
            yield self._session
            return
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(upstream.unix_path)) as session:
            yield session


async def _connect(upstream: Upstream) -> Probe:
    if upstream.unix_path is None:
        _, writer = await asyncio.open_connection(upstream.host, upstream.port, ssl=upstream.tls or None)
    else:
        _, writer = await asyncio.open_unix_connection(upstream.unix_path)
    writer.close()
    return Probe(ready=True, detail="accepts connections")


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Return the body, or as much of it as is worth holding."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            break
    return bytes(body)


def explain(error: Exception) -> str:
    """Say in a few words why an engine could not be asked.

    >>> explain(ConnectionRefusedError(111, "Connection refused"))
    'connection refused'
    >>> explain(aiohttp.ServerDisconnectedError())
    'it closed the connection without an answer'
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
        case _:
            return str(error) or type(error).__name__


def complaint(status: int, body: bytes) -> str:
    """Say in a few words what an engine's refusal says: its own message, else the status.

    >>> complaint(503, b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}')
    'loading model'
    >>> complaint(500, b"<html>")
    'it answers with status 500'
    """
    match _json(body):
        case {"error": {"message": str(text)}} | {"error": str(text)} | {"detail": str(text)} if text:
            return text[:1].lower() + text[1:200]
        case _:
            return f"it answers with status {status}"


def parse_models(body: bytes) -> list[Model]:
    """Return the models of a list in OpenAI's form, leaving out what is malformed.

    >>> parse_models(b'{"object":"list","data":[{"id":"a","max_model_len":512},{"id":""},7]}')
    [Model(id='a', context_length=512, modalities=None, kind='')]
    >>> parse_models(b'{"object":"list","data":null}')
    []
    """
    match _json(body):
        case {"data": list(entries)}:
            return [Model(entry["id"], _context_length(entry)) for entry in entries if _names_model(entry)]
        case _:
            return []


def _names_model(entry: object) -> bool:
    match entry:
        case {"id": str(name)}:
            return bool(name)
        case _:
            return False


def _context_length(entry: object) -> int | None:
    """Look where vLLM, LM Studio, OpenRouter and llama.cpp put it."""
    match entry:
        case (
            {"max_model_len": int(length)}
            | {"max_context_length": int(length)}
            | {"context_length": int(length)}
            | {"meta": {"n_ctx": int(length)}}
            | {"meta": {"n_ctx_train": int(length)}}
        ):
            return length
        case _:
            return None


def _json(body: bytes) -> object:
    try:
        value: object = json.loads(body)
    except ValueError:
        return None
    return value
