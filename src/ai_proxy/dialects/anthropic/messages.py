"""POST /v1/messages, asked of an engine as a chat completion."""

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError
from ai_proxy.dialects.anthropic.errors import error_event, render
from ai_proxy.dialects.anthropic.reply import whole
from ai_proxy.dialects.anthropic.request import Request, chat
from ai_proxy.dialects.anthropic.stream import EventStream
from ai_proxy.dialects.body import decode, encode
from ai_proxy.dialects.chat import ChatTranslation
from ai_proxy.dialects.completion import Facts, Said


def translate(body: bytes, request_id: str = "") -> ChatTranslation:
    """Translate a request.

    Args:
        body: As the client sent it.
        request_id: Told in errors.

    Raises:
        InvalidRequestError: It is not what the Messages API takes, or has no equivalent.
    """
    request = decode(body, Request)
    reply = MessageReply(request, request_id)
    return ChatTranslation(Endpoint.CHAT, encode(chat(request)), reply, streamed=bool(request.stream))


class MessageReply:
    """Says what a model has answered as a message or as the events of one; a `Reply`."""

    media_type = b"text/event-stream"

    def __init__(self, request: Request, request_id: str) -> None:
        self._request = request
        self._request_id = request_id
        self._stream = EventStream(request)

    def whole(self, said: Said, facts: Facts) -> bytes:
        """Return the whole message."""
        return encode(whole(said, facts, self._request))

    def piece(self, said: Said, facts: Facts) -> bytes:
        """Return the events that tell what the model has added."""
        return b"".join(self._stream.piece(said, facts))

    def end(self, facts: Facts) -> bytes:
        """Return the events that end the message."""
        return b"".join(self._stream.end(facts))

    def refusal(self, status: int, words: str) -> bytes:
        """Return the body of an error that the engine answers with."""
        return render(status, words, self._request_id)

    def failure(self, error: ProxyError) -> bytes:
        """Return the event that tells of an error."""
        return error_event(error, self._request_id)
