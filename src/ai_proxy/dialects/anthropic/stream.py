"""A streamed answer of an engine, as the events of Anthropic's API.

They come in this order: message_start; for every block content_block_start, content_block_delta (any
number), content_block_stop; message_delta with the reason of the end and the tokens; message_stop.
"""

from collections.abc import Iterator

from ai_proxy.core.errors import UpstreamInvalidError
from ai_proxy.dialects.anthropic.reply import call_id, message, stop, usage
from ai_proxy.dialects.anthropic.request import Request
from ai_proxy.dialects.body import encode
from ai_proxy.dialects.completion import Facts, Said, ToolCall
from ai_proxy.dialects.tools import Call, Calls

TEXT = "text"
THINKING = "thinking"

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""Shows a client that the engine is at work, while the model thinks unseen."""


def event(name: str, **members: object) -> bytes:
    r"""Render one event.

    >>> event("content_block_stop", index=0)
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    """
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode({"type": name, **members}))


class EventStream:
    """Makes events of what the model says, one block after the other."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._begun = False
        self._block: str | Call | None = None
        self._blocks = 0
        self._calls = Calls()

    def piece(self, said: Said, facts: Facts) -> Iterator[bytes]:
        """Yield the events that tell what the model has added.

        Raises:
            UpstreamInvalidError: A piece of a tool call came when the next block had begun.
        """
        yield from self._begin(facts)
        if said.thinking and self._request.shows_thinking:
            yield from self._open(THINKING, {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": said.thinking})
        elif said.thinking:
            yield PING
        if said.text:
            yield from self._open(TEXT, {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": said.text})
        for piece in said.tool_calls or ():
            yield from self._tool_call(piece, facts)

    def end(self, facts: Facts) -> Iterator[bytes]:
        """Yield the events that end the message."""
        yield from self._begin(facts)
        yield from self._close()
        why = stop(facts, self._request.stop_sequences, called=bool(self._calls.all))
        yield event("message_delta", delta=why, usage=usage(facts))
        yield event("message_stop")

    def _begin(self, facts: Facts) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            yield event("message_start", message=message(self._request, facts))

    def _tool_call(self, piece: ToolCall, facts: Facts) -> Iterator[bytes]:
        known = len(self._calls.all)
        call, added = self._calls.add(piece)
        if call is not self._block and len(self._calls.all) == known:
            if added:
                raise UpstreamInvalidError("the engine went on with a tool call after it had begun the next")
            return
        name = call_id(call, known, facts)
        yield from self._open(call, {"type": "tool_use", "id": name, "name": call.name, "input": {}})
        if added:
            yield self._delta({"type": "input_json_delta", "partial_json": added})

    def _open(self, block: str | Call, start: dict[str, object]) -> Iterator[bytes]:
        """Begin a block, unless it is the one that is open."""
        if self._block == block:
            return
        yield from self._close()
        self._block = block
        yield event("content_block_start", index=self._blocks, content_block=start)

    def _close(self) -> Iterator[bytes]:
        if self._block is not None:
            yield event("content_block_stop", index=self._blocks)
            self._block = None
            self._blocks += 1

    def _delta(self, delta: dict[str, object]) -> bytes:
        return event("content_block_delta", index=self._blocks, delta=delta)
