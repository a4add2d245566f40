"""An application that comes late: making it takes a third of a start, and no request to a model needs it."""

import asyncio
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send


class LateApplication:
    """Has requests wait until there is an application for them.

    Args:
        early: What answers by itself until then, by path.
    """

    def __init__(self, early: Mapping[str, ASGIApp]) -> None:
        self._early = early
        self._app: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, once that is possible."""
        app = None if self._app.done() else self._early.get(scope["path"])
        if app is None:
            app = await asyncio.shield(self._app)  # whoever gives up waiting does so alone
        await app(scope, receive, send)

    async def come(self, make: Callable[[], ASGIApp]) -> None:
        """Make the application, in a thread: requests to models go on meanwhile.

        If that fails, nobody is left waiting.

        Args:
            make: Its errors are raised here.
        """
        try:
            self._app.set_result(await asyncio.to_thread(make))
        finally:
            self._app.cancel()  # does nothing once there is a result
