"""Writes events of our containers into their logs: they explain an exit, or why a container does not respond.

Exits themselves are noticed by waiting for them.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import msgspec
from loguru import logger

from ai_proxy.core.errors import RuntimeUnavailableError
from ai_proxy.runtimes.docker.answers import Event
from ai_proxy.runtimes.docker.api import DockerApi, RefusedError
from ai_proxy.runtimes.docker.spec import OWNER, SERVICE

RETRY = 0.5
"""Seconds between two tries to listen while the engine is away."""

MEANINGS = {
    "oom": "docker: out of memory: the kernel killed a process in the container",
    "pause": "docker: the container was paused from outside: it does not answer until it is unpaused",
    "unpause": "docker: the container was unpaused",
    "health_status: unhealthy": "docker: the container's health check fails",
    "health_status: healthy": "docker: the container's health check succeeds",
}


def describe(event: Event) -> tuple[str, str] | None:
    """Return the service an event is about and a line for its log; None when there is nothing to say.

    >>> from ai_proxy.runtimes.docker.answers import Actor
    >>> describe(Event("oom", Actor({"ai-proxy.service": "llama3"})))
    ('llama3', 'docker: out of memory: the kernel killed a process in the container')
    >>> describe(Event("exec_start: ls"))
    """
    attributes = event.actor.attributes if event.actor is not None else None
    service_id, line = (attributes or {}).get(SERVICE), MEANINGS.get(event.action)
    return (service_id, line) if service_id and line else None


class EventFollower:
    """Follows an engine's events, and catches up on those it missed while the engine was away.

    Args:
        api: Where to listen.
        owner: Label of the containers.
        say: Takes a service id and a line.
        since: Seconds since the epoch.
    """

    def __init__(self, api: DockerApi, owner: str, say: Callable[[str, str], None], since: float) -> None:
        self._api = api
        self._say = say
        self._last = int(since * 1e9)
        filters = {
            "type": ["container"],
            "label": [f"{OWNER}={owner}"],
            "event": ["oom", "pause", "unpause", "health_status"],
        }
        self._filters = msgspec.json.encode(filters).decode()

    async def follow(self) -> None:
        """Follow events until cancelled."""
        refused = False
        while True:
            try:
                await self._listen()
            except RuntimeUnavailableError:
                pass
            except RefusedError as error:  # not every engine has all events; services run without them
                logger.log("DEBUG" if refused else "WARNING", "Docker reports no events: {}", error.message)
                refused = True
            await asyncio.sleep(RETRY)

    async def _listen(self) -> None:
        since = f"{self._last // 10**9}.{self._last % 10**9:09d}"
        listening = self._api.documents("GET", "/events", Event, filters=self._filters, since=since)
        async with aclosing(listening) as events:
            async for event in events:
                if event.time > self._last:
                    self._last = event.time
                    if described := describe(event):
                        self._say(*described)
