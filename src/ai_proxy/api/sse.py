"""Server-sent events (WHATWG HTML, section 9.2): what has happened lately, then what happens."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Send

from ai_proxy.platform.tasks import cancel, spawn

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that nobody takes the connection for dead."""

MAX_BACKLOG = 10_000
"""Items kept for a client that reads slowly; beyond, it loses the oldest."""


def event(data: object, *, id: int, kind: str) -> str:  # noqa: A002 - the field's name in the standard
    r"""Render one event.

    >>> event({"text": "ready"}, id=7, kind="log")
    'id: 7\nevent: log\ndata: {"text": "ready"}\n\n'
    """
    return f"id: {id}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def documented(description: str, example: str) -> dict[str, object]:
    """Return what the OpenAPI document says of an answer that may be a stream of events."""
    content = {"schema": {"type": "string"}, "example": example}
    return {"description": description, "content": {"text/event-stream": content}}


async def follow[T](
    recent: Callable[[], Iterable[T]],
    subscribe: Callable[[Callable[[T], None]], Callable[[], None]],
    render: Callable[[T], str],
    heartbeat: float = HEARTBEAT,
) -> AsyncGenerator[str]:
    """Yield what `recent` returns and then, without a gap or a repetition, what subscribers are told.

    Args:
        recent: Returns what has happened lately, oldest first.
        subscribe: Registers a callback for what happens; returns the function that ends it.
        render: Makes an event of an item.
        heartbeat: Seconds of silence after which a comment is sent.
    """
    backlog: deque[T] = deque(maxlen=MAX_BACKLOG)
    arrived = asyncio.Event()

    def take(item: T) -> None:
        backlog.append(item)
        arrived.set()

    # Both in one step of the event loop: nothing can happen in between.
    unsubscribe = subscribe(take)
    past = list(recent())
    try:
        yield ": following\n\n" + "".join(map(render, past))
        while True:
            try:
                async with asyncio.timeout(heartbeat):
                    await arrived.wait()
            except TimeoutError:
                yield ": still here\n\n"
                continue
            arrived.clear()
            items = list(backlog)
            backlog.clear()
            yield "".join(map(render, items))
    finally:
        unsubscribe()


async def stream[T](
    items: AsyncGenerator[T], render: Callable[[T], str], heartbeat: float = HEARTBEAT
) -> AsyncGenerator[str]:
    """Yield what another generator yields, as events.

    Args:
        items: Goes on until it is closed, which it is at the end.
        render: Makes an event of an item.
        heartbeat: Seconds of silence after which a comment is sent.
    """
    coming: asyncio.Task[T] | None = None
    try:
        yield ": following\n\n"
        while True:
            coming = coming or spawn(_next(items), "next event")
            await asyncio.wait((coming,), timeout=heartbeat)
            if coming.done():
                item, coming = coming.result(), None
                yield render(item)
            else:
                yield ": still here\n\n"
    finally:
        await cancel(coming)
        await items.aclose()


async def _next[T](items: AsyncGenerator[T]) -> T:
    return await anext(items)


class EventStream(StreamingResponse):
    """A response of server-sent events, whose source is closed as soon as the client has left."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        """Send the events until they end or the client leaves."""
        async with aclosing(self._events):
            await super().stream_response(send)
