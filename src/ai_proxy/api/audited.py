"""Writes every management change to the audit log: who, what, from where, and the result."""

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
"""The result of an operation that was unfinished when the proxy stopped."""


def action(operation: str) -> str:
    """Return the audit log's name for an operation.

    >>> action("stop_service"), action("create_key"), action("reload_config")
    ('service.stop', 'key.create', 'config.reload')
    """
    verb, _, noun = operation.partition("_")
    return f"{noun}.{verb}"


class AuditMiddleware:
    """Records every request that changes something, before its answer is sent.

    When the audit log cannot be written, the change is already made: the proxy's own log then has the entry.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        scope["state"]["audit_event"] = AuditEvent()
        answer = _RecordedAnswer(scope, send)
        try:
            await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:
            await _record(scope, INTERRUPTED, "")
            raise
        except Exception:  # recorded, and raised again
            await _record(scope, ProxyError.code, "")
            raise


class _RecordedAnswer:
    """The answer to one request, held back until its result is recorded."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """Send a part of the answer; its head waits for the body, which has the detail of an error."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            await _record(self._scope, *outcome(start, message.get("body", b"")))
            await self._send(start)
        await self._send(message)


def outcome(start: Message, body: bytes) -> tuple[str, str]:
    """Return the result and the detail of an answer: `ok`, or the code and detail of an error."""
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
    if not what or isinstance(context.state, StoreError):
        return
    state = request.state
    entry = (state.principal, what, state.address, result, detail or state.audit_event.detail)
    try:
        await context.state.security.audit.record(*entry)
    except StoreError as error:
        logger.error("cannot write the audit log ({}): {!r} did {!r} from {}: {}", error, *entry[:4])


def _what(request: Request) -> str:
    """Return the operation and its target; empty when the request is no management operation."""
    route = request.scope.get("route")
    path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or ()
    if not path.startswith(MANAGEMENT) or request.method not in methods:
        return ""
    audit_event: AuditEvent = request.state.audit_event
    targets = (
        [audit_event.target] if audit_event.target else [str(value) for value in request.path_params.values()]
    )
    return " ".join((action(getattr(route, "name", "")), *targets))
