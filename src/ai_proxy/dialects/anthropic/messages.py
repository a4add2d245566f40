"""POST /v1/messages, translated into a chat completion.

The events of a streamed response come in this order: message_start; for every block content_block_start,
any number of content_block_delta, content_block_stop; message_delta with the stop reason and the tokens;
message_stop.
"""

from collections.abc import Iterator

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError, UpstreamInvalidError
from ai_proxy.dialects.anthropic.errors import error_event, render
from ai_proxy.dialects.anthropic.reply import call_id, empty_message, stop, usage, whole
from ai_proxy.dialects.anthropic.request import Request, chat
from ai_proxy.dialects.body import decode, encode
from ai_proxy.dialects.completion import Delta, Facts, ToolCall
from ai_proxy.dialects.tools import Call, Calls
from ai_proxy.dialects.translation import ChatTranslation

TEXT = "text"
THINKING = "thinking"

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""Shows a client that the engine is at work while the model thinks and the client sees none of it."""


def translate(body: bytes, request_id: str = "") -> ChatTranslation:
    """Translate a request.

    Args:
        body: As the client sent it.
        request_id: Id to put into errors.

    Raises:
        InvalidRequestError: It is not a request of the Messages API, or has no equivalent.
    """
    request = decode(body, Request)
    reply = EventWriter(request, request_id)
    return ChatTranslation(Endpoint.CHAT, encode(chat(request)), reply, streamed=bool(request.stream))


class EventWriter:
    """Writes model output as a message or as its events, one block after the other; a `ReplyWriter`."""

    media_type = b"text/event-stream"

    def __init__(self, request: Request, request_id: str) -> None:
        self._request = request
        self._request_id = request_id
        self._begun = False
        self._block: str | Call | None = None
        self._blocks = 0
        self._calls = Calls()

    def whole(self, message: Delta, facts: Facts) -> bytes:
        """Return the complete message."""
        return encode(whole(message, facts, self._request))

    def delta(self, delta: Delta, facts: Facts) -> bytes:
        """Return the events for a delta."""
        return b"".join(self._delta_events(delta, facts))

    def end(self, facts: Facts) -> bytes:
        """Return the events that end the message."""
        return b"".join(self._end_events(facts))

    def refusal(self, status: int, message: str) -> bytes:
        """Return the body of an error response of the engine."""
        return render(status, message, self._request_id)

    def failure(self, error: ProxyError) -> bytes:
        """Return the event that reports an error."""
        return error_event(error, self._request_id)

    def _delta_events(self, delta: Delta, facts: Facts) -> Iterator[bytes]:
        yield from self._begin(facts)
        if delta.thinking and self._request.shows_thinking:
            yield from self._open(THINKING, {"type": "thinking", "thinking": "", "signature": ""})
            yield self._block_delta({"type": "thinking_delta", "thinking": delta.thinking})
        elif delta.thinking:
            yield PING
        if delta.text:
            yield from self._open(TEXT, {"type": "text", "text": ""})
            yield self._block_delta({"type": "text_delta", "text": delta.text})
        for piece in delta.tool_calls or ():
            yield from self._tool_call(piece, facts)

    def _end_events(self, facts: Facts) -> Iterator[bytes]:
        yield from self._begin(facts)
        yield from self._close()
        reason = stop(facts, self._request.stop_sequences, called=bool(self._calls.all))
        yield event("message_delta", delta=reason, usage=usage(facts))
        yield event("message_stop")

    def _begin(self, facts: Facts) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            yield event("message_start", message=empty_message(self._request, facts))

    def _tool_call(self, piece: ToolCall, facts: Facts) -> Iterator[bytes]:
        known = len(self._calls.all)
        call, added = self._calls.add(piece)
        if call is not self._block and len(self._calls.all) == known:
            if added:
                raise UpstreamInvalidError("the engine continued a tool call after it had begun the next one")
            return
        name = call_id(call, known, facts)
        yield from self._open(call, {"type": "tool_use", "id": name, "name": call.name, "input": {}})
        if added:
            yield self._block_delta({"type": "input_json_delta", "partial_json": added})

    def _open(self, block: str | Call, start: dict[str, object]) -> Iterator[bytes]:
        """Begin a block, unless it is already open."""
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

    def _block_delta(self, delta: dict[str, object]) -> bytes:
        return event("content_block_delta", index=self._blocks, delta=delta)


def event(name: str, **members: object) -> bytes:
    r"""Return one event as it goes over the wire.

    >>> event("content_block_stop", index=0)
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    """
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode({"type": name, **members}))
