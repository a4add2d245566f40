"""Writes every management change to the audit log, whatever came of it: who, what, from where, the result."""

import asyncio
import json
from collections.abc import Mapping

from loguru import logger
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ai_proxy.api.deps import AuditEvent, Context
from ai_proxy.core.errors import ProxyError, StoreError

MANAGEMENT = "/api/v1/"
READING = frozenset({"GET", "HEAD", "OPTIONS"})

INTERRUPTED = "interrupted"
"""The result of what was not over when the proxy ended."""


def action(operation: str) -> str:
    """Name what an operation does, for the audit log.

    >>> action("stop_service"), action("create_key"), action("reload_config")
    ('service.stop', 'key.create', 'config.reload')
    """
    verb, _, noun = operation.partition("_")
    return f"{noun}.{verb}"


class Audited:
    """Passes requests on; the answer to one that changes something is sent when it is in the audit log.

    Where the log cannot be written, the change has been made all the same: that is told in the proxy's own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        scope["state"]["audit_event"] = AuditEvent()
        watched = _Watched(scope, send)
        try:
            await self._app(scope, receive, watched.send)
        except asyncio.CancelledError:
            await _record(scope, INTERRUPTED, "")
            raise
        except Exception:  # whatever it is, it is written down, and goes on
            await _record(scope, ProxyError.code, "")
            raise


class _Watched:
    """The answer to one request, held back until what came of it is written down."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on: its beginning together with what follows."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            await _record(self._scope, *outcome(start, message.get("body", b"")))
            await self._send(start)
        await self._send(message)


def outcome(start: Message, body: bytes) -> tuple[str, str]:
    """Return the result and the detail that an answer tells: `ok`, or code and words of an error."""
    headers: Mapping[bytes, bytes] = {name.lower(): value for name, value in start["headers"]}
    code = headers.get(b"x-ai-proxy-error", b"").decode("latin-1")
    if not code:
        return ("ok", "") if start["status"] < 400 else (str(start["status"]), "")
    try:
        return code, str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return code, ""


async def _record(scope: Scope, result: str, detail: str) -> None:
    request = Request(scope)
    context: Context = request.app.state.context
    what = _what(request)
    if not what or isinstance(context.keeping, StoreError):
        return
    state = request.state
    entry = (state.principal, what, state.address, result, detail or state.audit_event.detail)
    try:
        await context.keeping.security.audit.record(*entry)
    except StoreError as error:
        logger.error("not in the audit log ({}): {!r} did {!r} from {}: {}", error, *entry[:4])


def _what(request: Request) -> str:
    """Name what was asked for; empty for what is no operation that manages anything."""
    route = request.scope.get("route")
    path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or ()
    if not path.startswith(MANAGEMENT) or request.method not in methods:
        return ""
    audit_event: AuditEvent = request.state.audit_event
    targets = (
        [audit_event.target] if audit_event.target else [str(value) for value in request.path_params.values()]
    )
    return " ".join((action(getattr(route, "name", "")), *targets))
