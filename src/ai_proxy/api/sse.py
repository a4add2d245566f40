"""Server-sent events (WHATWG HTML, section 9.2): recent items, then every new one.

FastAPI's own event streams begin when a generator yields; ours must answer 404 or JSON instead, depending on
parameters, so this module uses its format and its response class only.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing

from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Send

from ai_proxy.platform.tasks import cancel, spawn

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy closes the connection."""

MAX_BACKLOG = 10_000
"""Items kept for a client that reads slowly; beyond, it loses the oldest."""


def event(data: object, *, id: int, kind: str) -> str:  # noqa: A002 - the field's name in the standard
    r"""Render one event.

    >>> event({"text": "ready"}, id=7, kind="log")
    'event: log\ndata: {"text": "ready"}\nid: 7\n\n'
    """
    return format_sse_event(data_str=json.dumps(data, ensure_ascii=False), event=kind, id=str(id)).decode()


def documented(description: str, example: str) -> dict[str, object]:
    """Return the OpenAPI documentation of an answer that may be a stream of events."""
    content = {"schema": {"type": "string"}, "example": example}
    return {"description": description, "content": {"text/event-stream": content}}


def follow[T](
    recent: Callable[[], Iterable[T]],
    subscribe: Callable[[Callable[[T], None]], Callable[[], None]],
    render: Callable[[T], str],
    heartbeat: float = HEARTBEAT,
) -> AsyncGenerator[str]:
    """Yield the recent items and then every new one as events, without a gap or a repetition.

    Args:
        recent: Returns the recent items, oldest first.
        subscribe: Registers a callback for new items; returns the function that unregisters it.
        render: Renders an item as an event.
        heartbeat: Seconds of silence after which a comment is sent.
    """
    return stream(_batches(recent, subscribe), lambda batch: "".join(map(render, batch)), heartbeat)


async def _batches[T](
    recent: Callable[[], Iterable[T]], subscribe: Callable[[Callable[[T], None]], Callable[[], None]]
) -> AsyncGenerator[Sequence[T]]:
    backlog: deque[T] = deque(maxlen=MAX_BACKLOG)
    arrived = asyncio.Event()

    def take(item: T) -> None:
        backlog.append(item)
        arrived.set()

    # Both in one step of the event loop: no item can come in between.
    unsubscribe = subscribe(take)
    batch = list(recent())
    try:
        while True:
            if batch:
                yield batch
            await arrived.wait()
            arrived.clear()
            batch = list(backlog)
            backlog.clear()
    finally:
        unsubscribe()


async def stream[T](
    items: AsyncGenerator[T], render: Callable[[T], str], heartbeat: float = HEARTBEAT
) -> AsyncGenerator[str]:
    """Yield the items of another generator as events.

    Args:
        items: Endless; closed at the end.
        render: Renders an item as an event.
        heartbeat: Seconds of silence after which a comment is sent.
    """
    coming = spawn(_next(items), "next event")
    try:
        yield ": following\n\n"
        while True:
            await asyncio.wait((coming,), timeout=heartbeat)
            if coming.done():
                item = coming.result()
                coming = spawn(_next(items), "next event")
                yield render(item)
            else:
                yield ": still here\n\n"
    finally:
        await cancel(coming)
        await items.aclose()


async def _next[T](items: AsyncGenerator[T]) -> T:
    return await anext(items)


class EventStream(EventSourceResponse):
    """A stream of events whose source is closed as soon as the client has left."""

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        """Send the events until they end or the client leaves."""
        async with aclosing(self._events):
            await super().stream_response(send)
