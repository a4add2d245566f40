"""The part of a translation that all dialects share: reading what the engine answers to a chat."""

from typing import Protocol

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError, UpstreamInvalidError
from ai_proxy.dialects import sse
from ai_proxy.dialects.completion import Facts, Said, read_answer
from ai_proxy.dialects.errors import engine_message


class Reply(Protocol):
    """How a dialect says what a model has answered.

    Attributes:
        media_type: Content type of its streams.
    """

    media_type: bytes

    def whole(self, said: Said, facts: Facts) -> bytes:
        """Return the body of a whole answer.

        Raises:
            UpstreamInvalidError: The dialect has no words for what the engine answers.
        """

    def piece(self, said: Said, facts: Facts) -> bytes:
        """Return what is to be sent when a stream brings something that the model says.

        Raises:
            UpstreamInvalidError: The dialect has no words for what the engine answers.
        """

    def end(self, facts: Facts) -> bytes:
        """Return the end of a stream, when everything has come.

        Raises:
            UpstreamInvalidError: The dialect has no words for what the engine answers.
        """

    def refusal(self, status: int, words: str) -> bytes:
        """Return the body of an error that the engine answers with."""

    def failure(self, error: ProxyError) -> bytes:
        """Return what tells of an error in a stream that has begun."""


class ChatTranslation:
    """A request that becomes a chat or a completion, and its answer; a `Translation`."""

    def __init__(self, path: Endpoint, request: bytes, reply: Reply, *, streamed: bool) -> None:
        self.path: str = path
        self.request = request
        self.streamed = streamed
        self.media_type = reply.media_type
        self._reply = reply
        self._facts = Facts()
        self._events = sse.Parser()
        self._unsent = bytearray()
        self._ended = False

    def whole(self, body: bytes) -> bytes:
        """Translate a complete successful answer.

        Raises:
            UpstreamInvalidError: It is not an answer to a chat.
        """
        answer = read_answer(body)
        if answer.choice is None:
            raise UpstreamInvalidError("the engine's answer has no choices")
        self._facts.note(answer)
        return self._reply.whole(answer.choice.said, self._facts)

    def refusal(self, status: int, body: bytes) -> bytes:
        """Translate an error that the engine answers with."""
        return self._reply.refusal(status, engine_message(body, status))

    def feed(self, data: bytes) -> bytes:
        """Translate what came of the engine's stream.

        Raises:
            UpstreamInvalidError: It is not what the engine should answer, or tells of an error.
        """
        if self._ended:
            return b""
        for event in self._events.feed(data):
            if event.data == sse.DONE:
                self._end()
                break
            self._take_up(event.data)
        return self._sent()

    def finish(self) -> bytes | None:
        """Return what is left to say, when the engine's stream has ended; None when it ended too early."""
        if not self._ended and self._facts.finish_reason is None:
            return None
        if not self._ended:
            self._end()
        return self._sent()

    def failure(self, error: ProxyError) -> bytes:
        """Return what was translated before an error, and what tells of it."""
        return self._sent() + self._reply.failure(error)

    def _take_up(self, data: bytes) -> None:
        answer = read_answer(data)
        self._facts.note(answer)
        if answer.choice is not None:
            self._unsent += self._reply.piece(answer.choice.said, self._facts)

    def _end(self) -> None:
        self._ended = True
        self._unsent += self._reply.end(self._facts)

    def _sent(self) -> bytes:
        sent = bytes(self._unsent)
        self._unsent.clear()
        return sent
