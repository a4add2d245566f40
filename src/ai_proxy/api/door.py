"""What every request passes before the application sees it: who calls, under which request id."""

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loguru import logger
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ai_proxy.core.keys import redacted
from ai_proxy.platform.tasks import cancel, spawn

OWNER = "owner"
"""The principal behind the owner's door: whoever may open the socket file."""

ANONYMOUS = "anonymous"
"""The principal whom nobody has asked for a name."""

LOCAL = "local"
"""The address behind the owner's door."""

UNKNOWN_ADDRESS = "unknown"
"""The address that nobody has told."""

PRINCIPAL_HEADER, ADDRESS_HEADER = b"x-ai-proxy-principal", b"x-ai-proxy-client"
"""Only the gateway can set them: it strips them from whatever comes in."""

_SANE_ID = re.compile(rb"[\w.:/+=-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        principal: A key's id, `owner`, or `anonymous`.
        address: The client's; `local` for the owner.
    """

    principal: str
    address: str


def client_principal(scope: Scope) -> Caller:
    """Return whom the gateway says a request comes from."""
    return Caller(
        _told(scope, PRINCIPAL_HEADER) or ANONYMOUS, _told(scope, ADDRESS_HEADER) or UNKNOWN_ADDRESS
    )


def owner_principal(_: Scope) -> Caller:
    """Return the owner: nobody else can open the owner's door."""
    return Caller(OWNER, LOCAL)


def _told(scope: Scope, name: bytes) -> str:
    return (_header(scope, name) or b"").decode("latin-1")


class Door:
    """One way into the application: names the caller and the request, logs it, and can be closed."""

    def __init__(self, app: ASGIApp, caller: Callable[[Scope], Caller]) -> None:
        self._app = app
        self._caller = caller
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End the streams that would go on for ever; all else is finished in peace."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        request_id, caller = _request_id(scope), self._caller(scope)
        scope["state"] = {
            "principal": caller.principal,
            "address": caller.address,
            "request_id": request_id,
        }
        passage = _Passage(request_id, self._closing, receive, send)
        with logger.contextualize(request_id=request_id):
            try:
                await self._app(scope, passage.receive, passage.send)
                await passage.finish()
            except Exception:  # noqa: BLE001 - the client has its answer from problems.py; the log gets the reason
                logger.exception("unexpected error in {} {}", scope["method"], redacted(scope["path"]))
            path = redacted(scope["path"])
            logger.debug("{} {} {} in {:.1f} ms", scope["method"], path, passage.status, passage.took)


class _Passage:
    """One request on its way through a door."""

    def __init__(self, request_id: str, closing: asyncio.Event, receive: Receive, send: Send) -> None:
        self.status = 0
        self._request_id = request_id
        self._closing = closing
        self._receive = receive
        self._send = send
        self._began = time.perf_counter()
        self._unfinished = False

    @property
    def took(self) -> float:
        """Milliseconds since it came."""
        return (time.perf_counter() - self._began) * 1000

    async def send(self, message: Message) -> None:
        """Pass a part of the response on, with the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self._request_id.encode())]
        self._unfinished = message["type"] == "http.response.start" or message.get("more_body", False)
        await self._send(message)

    async def receive(self) -> Message:
        """Pass a part of the request on; to a stream, a door that closes looks like a client that leaves."""
        message = spawn(_await(self._receive()), "api-receive")
        closing = spawn(self._closing.wait(), "api-closing")
        try:
            await asyncio.wait({message, closing}, return_when=asyncio.FIRST_COMPLETED)
            return message.result() if message.done() else {"type": "http.disconnect"}
        finally:
            await cancel(message, closing)

    async def finish(self) -> None:
        """Give a stream that was ended by the closing door a proper end."""
        if self._unfinished and self._closing.is_set():
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _await[T](awaitable: Awaitable[T]) -> T:
    return await awaitable


def _request_id(scope: Scope) -> str:
    """Return the client's request id when it is a sane one, else a new one."""
    given = _header(scope, b"x-request-id")
    return given.decode() if given and _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
