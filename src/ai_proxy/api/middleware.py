"""Around every request to the management application: its principal, id and log line, its end at shutdown."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loguru import logger
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ai_proxy.core.http import CLIENT, PRINCIPAL, is_sane_request_id
from ai_proxy.core.keys import redacted
from ai_proxy.platform.tasks import cancel, spawn

OWNER = "owner"
"""The principal on the owner's socket: file permissions keep everybody else out."""

ANONYMOUS = "anonymous"
"""The principal of a request that needed no key."""

LOCAL = "local"
"""The address of a caller on the owner's socket."""

UNKNOWN_ADDRESS = "unknown"
"""The address of a client whom the gateway did not name."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        principal: A key's id, `owner`, or `anonymous`.
        address: The client's; `local` for the owner.
    """

    principal: str
    address: str


def client_principal(scope: Scope) -> Caller:
    """Return the caller that the gateway names in its headers."""
    principal, address = _header(scope, PRINCIPAL), _header(scope, CLIENT)
    return Caller(principal.decode("latin-1") or ANONYMOUS, address.decode("latin-1") or UNKNOWN_ADDRESS)


def owner_principal(_: Scope) -> Caller:
    """Return the owner: nobody else can open the owner's socket."""
    return Caller(OWNER, LOCAL)


class Middleware:
    """Wraps the application for one socket: sets `scope["state"]`, logs each request, and ends streams.

    Args:
        app: What answers.
        caller: Returns who sent a request.
    """

    def __init__(self, app: ASGIApp, caller: Callable[[Scope], Caller]) -> None:
        self._app = app
        self._caller = caller
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End streams, which would go on for ever; other requests finish."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request_id, caller = _request_id(scope), self._caller(scope)
        scope["state"] = {"principal": caller.principal, "address": caller.address, "request_id": request_id}
        request = _Request(request_id, self._closing, receive, send)
        path = redacted(scope["path"])
        with logger.contextualize(request_id=request_id):
            try:
                await self._app(scope, request.receive, request.send)
                await request.finish()
            except Exception:  # noqa: BLE001 - problems.py has answered the client; the log gets the reason
                logger.exception("unexpected error in {} {}", scope["method"], path)
            logger.debug("{} {} {} in {:.1f} ms", scope["method"], path, request.status, request.milliseconds)


class _Request:
    """One request: what the application receives and sends passes through here."""

    def __init__(self, request_id: str, closing: asyncio.Event, receive: Receive, send: Send) -> None:
        self.status = 0
        self._request_id = request_id
        self._closing = closing
        self._receive = receive
        self._send = send
        self._began = time.perf_counter()
        self._unfinished = False

    @property
    def milliseconds(self) -> float:
        """Since the request came."""
        return (time.perf_counter() - self._began) * 1000

    async def send(self, message: Message) -> None:
        """Send a part of the response, with the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self._request_id.encode())]
        self._unfinished = message["type"] == "http.response.start" or message.get("more_body", False)
        await self._send(message)

    async def receive(self) -> Message:
        """Return a part of the request; at shutdown, what a client that leaves looks like."""
        message = spawn(_await(self._receive()), "receive from a management client")
        closing = spawn(self._closing.wait(), "await the end of the management server")
        try:
            await asyncio.wait({message, closing}, return_when=asyncio.FIRST_COMPLETED)
            return message.result() if message.done() else {"type": "http.disconnect"}
        finally:
            await cancel(message, closing)

    async def finish(self) -> None:
        """Give a stream that the shutdown ended a proper end."""
        if self._unfinished and self._closing.is_set():
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _await[T](awaitable: Awaitable[T]) -> T:
    return await awaitable


def _request_id(scope: Scope) -> str:
    """Return the client's request id when it is a sane one, else a new one."""
    given = _header(scope, b"x-request-id")
    return given.decode() if is_sane_request_id(given) else uuid.uuid4().hex


def _header(scope: Scope, name: bytes) -> bytes:
    """Return the value of a header; empty without one."""
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")
