"""What happens to our containers without ending them, told in their logs.

That a container ended is learnt by waiting for it; this is for what explains it, or why it does not answer.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from contextlib import aclosing

from ai_proxy.core.errors import RuntimeUnavailableError
from ai_proxy.runtimes.docker.api import DockerApi, Json, RefusedError
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


def describe(event: Json) -> tuple[str, str] | None:
    """Return the service an event is about and a line for its log; None when there is nothing to say.

    >>> describe({"Action": "oom", "Actor": {"Attributes": {"ai-proxy.service": "llama3"}}})
    ('llama3', 'docker: out of memory: the kernel killed a process in the container')
    >>> describe({"Action": "exec_start: ls"})
    """
    service_id = ((event.get("Actor") or {}).get("Attributes") or {}).get(SERVICE)
    line = MEANINGS.get(event.get("Action", ""))
    return (service_id, line) if service_id and line else None


async def follow(api: DockerApi, owner: str, say: Callable[[str, str], None], since: float) -> None:
    """Tell what happens, until cancelled; what was missed while the engine could not be heard is told then.

    Args:
        api: Where to listen.
        owner: Whose containers it is about.
        say: Called with a service id and a line.
        since: Seconds since the epoch.
    """
    filters = json.dumps(
        {
            "type": ["container"],
            "label": [f"{OWNER}={owner}"],
            "event": ["oom", "pause", "unpause", "health_status"],
        }
    )
    last = int(since * 1e9)
    while True:
        with contextlib.suppress(RuntimeUnavailableError, RefusedError):
            moment = f"{last // 10**9}.{last % 10**9:09d}"
            async with aclosing(api.documents("GET", "/events", filters=filters, since=moment)) as events:
                async for event in events:
                    if event.get("timeNano", 0) > last:
                        last = event["timeNano"]
                        if told := describe(event):
                            say(*told)
        await asyncio.sleep(RETRY)
