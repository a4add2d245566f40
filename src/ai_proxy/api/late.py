"""An application that comes late: making it takes a third of a start, and no request to a model needs it."""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class LateApplication:
    """Has requests wait until there is an application for them."""

    def __init__(self) -> None:
        self._app: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, once that is possible."""
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
