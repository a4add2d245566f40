"""The web server of the management API: uvicorn, within the process and the event loop of the proxy."""

import asyncio
import socket

import uvicorn

from ai_proxy.api.middleware import Middleware
from ai_proxy.platform.tasks import cancel

GRACE = 5.0
"""Seconds that requests have to finish when the server is stopped."""


class UnixServer(uvicorn.Server):
    """A server for one Unix socket that leaves signals and logging to the program."""

    def __init__(self, app: Middleware) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._app = app

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve until cancelled; then end the streams, and let the other requests finish.

        Args:
            listener: Listens; closed at the end.
        """
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[listener])
        try:
            # Keeps the Date header fresh; uvicorn's own loop wakes ten times as often to look for signals.
            while True:
                await self.on_tick(0)
                await asyncio.sleep(1.0)
        finally:
            await self._stop()

    async def _stop(self) -> None:
        """Take no longer than the requests under way; uvicorn's own shutdown polls for their end."""
        self._app.close()
        for server in self.servers:
            server.close()
        for connection in tuple(self.server_state.connections):
            connection.shutdown()
        if requests := tuple(self.server_state.tasks):
            await asyncio.wait(requests, timeout=GRACE)
            await cancel(*requests)
