"""A request in another dialect, translated into OpenAI's API, and its response, translated back."""

from typing import Protocol

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError, UpstreamClosedError, UpstreamInvalidError
from ai_proxy.dialects import sse
from ai_proxy.dialects.completion import Delta, Facts, read_completion
from ai_proxy.dialects.errors import engine_message


class Translation(Protocol):
    """One translated request and the transcoder of its response. No I/O: bytes in, bytes out.

    `whole` and `refusal` take a response without a stream; `feed` and `finish` take a stream.

    Attributes:
        path: The path to ask the engine on, as in `core.abilities.Endpoint`.
        request: The body to send to the engine, in OpenAI's form; its `model` is still the client's.
        streamed: Whether the client asked for a stream.
        media_type: Content type of that stream.
    """

    path: str
    request: bytes
    streamed: bool
    media_type: bytes

    def whole(self, body: bytes) -> bytes:
        """Translate the engine's complete successful response.

        Raises:
            UpstreamInvalidError: The body is not the response that OpenAI's API defines.
        """

    def refusal(self, status: int, body: bytes) -> bytes:
        """Translate the engine's error response; the status stays the same."""

    def feed(self, data: bytes) -> bytes:
        """Translate the next bytes of the engine's stream; an incomplete event waits for the next call.

        Raises:
            UpstreamInvalidError: The stream is malformed or reports an error. `failure` then returns what
                was translated before it, followed by the error.
        """

    def finish(self) -> bytes:
        """Return the rest of the translated stream after the engine's stream has ended.

        Raises:
            UpstreamClosedError: The engine's stream ended before the answer was complete.
            UpstreamInvalidError: As for `feed`.
        """

    def failure(self, error: ProxyError) -> bytes:
        """Return the bytes that report an error in a stream that has begun."""


class ReplyWriter(Protocol):
    """Writes what a model generates in the dialect of the client.

    Attributes:
        media_type: Content type of its streams.
    """

    media_type: bytes

    def whole(self, message: Delta, facts: Facts) -> bytes:
        """Return the body of a complete response.

        Raises:
            UpstreamInvalidError: The dialect cannot express the message.
        """

    def delta(self, delta: Delta, facts: Facts) -> bytes:
        """Return what to send for one event of the engine's stream.

        Raises:
            UpstreamInvalidError: The dialect cannot express the delta.
        """

    def end(self, facts: Facts) -> bytes:
        """Return the end of a complete stream.

        Raises:
            UpstreamInvalidError: The dialect cannot express the message that the deltas add up to.
        """

    def refusal(self, status: int, message: str) -> bytes:
        """Return the body of an error response of the engine."""

    def failure(self, error: ProxyError) -> bytes:
        """Return the bytes that report an error in a stream that has begun."""


class ChatTranslation:
    """Translates a request into a chat or text completion; implements `Translation`."""

    def __init__(self, path: Endpoint, request: bytes, reply: ReplyWriter, *, streamed: bool) -> None:
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
        """Translate the engine's complete successful response."""
        completion = read_completion(body)
        if completion.choice is None:
            raise UpstreamInvalidError("the engine's response has no choices")
        self._facts.add(completion)
        return self._reply.whole(completion.choice.output, self._facts)

    def refusal(self, status: int, body: bytes) -> bytes:
        """Translate the engine's error response."""
        return self._reply.refusal(status, engine_message(body, status))

    def feed(self, data: bytes) -> bytes:
        """Translate the next bytes of the engine's stream."""
        if self._ended:
            return b""
        for event in self._events.feed(data):
            if event.data == sse.DONE:
                self._end()
                break
            chunk = read_completion(event.data)
            self._facts.add(chunk)
            if chunk.choice is not None:
                self._unsent += self._reply.delta(chunk.choice.output, self._facts)
        return self._take_unsent()

    def finish(self) -> bytes:
        """Return the rest of the stream; an engine may omit `[DONE]`, but not the finish reason."""
        if not self._ended:
            if self._facts.finish_reason is None:
                raise UpstreamClosedError("the engine closed its stream before the answer was complete")
            self._end()
        return self._take_unsent()

    def failure(self, error: ProxyError) -> bytes:
        """Return what was translated before an error, and then the error."""
        return self._take_unsent() + self._reply.failure(error)

    def _end(self) -> None:
        self._ended = True
        self._unsent += self._reply.end(self._facts)

    def _take_unsent(self) -> bytes:
        unsent = bytes(self._unsent)
        self._unsent.clear()
        return unsent
