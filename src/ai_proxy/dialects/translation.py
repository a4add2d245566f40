"""What the data plane asks of a dialect that has to be translated into OpenAI's API and back."""

from typing import Protocol

from ai_proxy.core.errors import ProxyError


class Translation(Protocol):
    """One request in another dialect, and its answer. No I/O: bytes in, bytes out.

    Attributes:
        path: What the engine is to be asked, as in `core.abilities.Endpoint`.
        request: The body to ask it with, in OpenAI's form; its `model` is still the client's.
        streamed: Whether the client is to get a stream.
        media_type: Content type of that stream.
    """

    path: str
    request: bytes
    streamed: bool
    media_type: bytes

    def whole(self, body: bytes) -> bytes:
        """Translate a complete successful answer of the engine to a request without a stream.

        Raises:
            UpstreamInvalidError: It is not what the engine should answer.
        """

    def refusal(self, status: int, body: bytes) -> bytes:
        """Translate an error that the engine answers with; the status stays."""

    def feed(self, data: bytes) -> bytes:
        """Translate what came of the engine's stream; what is not complete yet is kept.

        Raises:
            UpstreamInvalidError: It is not what the engine should answer, or tells of an error: say so with
                `failure`, which first says what was translated until then.
        """

    def finish(self) -> bytes | None:
        """Return what is left to say, when the engine's stream has ended; None when that ended too early.

        Raises:
            UpstreamInvalidError: As with `feed`.
        """

    def failure(self, error: ProxyError) -> bytes:
        """Return what tells of an error in a stream that has begun."""
