"""The management application, built when a request needs it: until then it takes neither time nor memory.

This module, `middleware.py`, `monitoring.py` and `sockets.py` are loaded at every start, so they import the
web framework only when a request comes.
"""

import asyncio
from collections.abc import Callable, Mapping

from loguru import logger
from starlette.types import ASGIApp, Receive, Scope, Send

from ai_proxy.core.errors import ManagementUnavailableError
from ai_proxy.core.http import PROBLEM, problem
from ai_proxy.platform.tasks import spawn

READING = ("GET", "HEAD")

type Application = ASGIApp
"""What answers the requests of a web server (ASGI)."""


class LazyApplication:
    """Builds an application for the first request that needs it, in a thread: other requests go on meanwhile.

    A failed build is logged, and answered to the requests that waited for it; the next request tries again.

    Args:
        build: Returns the application; called once at a time.
        endpoints: Answer GET and HEAD requests without the application, by path.
    """

    def __init__(self, build: Callable[[], ASGIApp], endpoints: Mapping[str, Callable[[], ASGIApp]]) -> None:
        self._build = build
        self._endpoints = endpoints
        self._app: ASGIApp | None = None
        self._building: asyncio.Task[ASGIApp] | None = None

    def __repr__(self) -> str:
        state = "built" if self._app else "being built" if self._building else "not built"
        return f"<LazyApplication [{state}]>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        app: ASGIApp
        if scope["path"] in self._endpoints and scope["method"] in READING:
            app = self._endpoints[scope["path"]]()
        else:
            app = self._app or await self._application()
        await app(scope, receive, send)

    async def _application(self) -> ASGIApp:
        """Wait for the one build that is under way; a client that leaves does not cancel it."""
        if self._building is None:
            self._building = spawn(self._build_in_thread(), "build the management application")
        return await asyncio.shield(self._building)

    async def _build_in_thread(self) -> ASGIApp:
        try:
            self._app = await asyncio.to_thread(self._build)
        except Exception as error:  # noqa: BLE001 - whatever it is, requests to models must go on
            logger.opt(exception=error).error("cannot build the management application")
            return _unavailable
        finally:
            self._building = None
        return self._app


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import JSONResponse

    error = ManagementUnavailableError(
        "the management application could not be built; see the proxy's log, then try again"
    )
    headers = {"X-AI-Proxy-Error": error.code}
    body = problem(error, scope["state"]["request_id"])
    await JSONResponse(body, error.status, headers, media_type=PROBLEM)(scope, receive, send)
