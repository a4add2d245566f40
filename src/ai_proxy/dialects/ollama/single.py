"""Requests whose answer is never a stream."""

from collections.abc import Callable

from ai_proxy.core.abilities import Endpoint
from ai_proxy.core.errors import ProxyError
from ai_proxy.dialects.body import encode
from ai_proxy.dialects.errors import engine_message
from ai_proxy.dialects.ollama.errors import error_body, render


class SingleTranslation:
    """A request that is asked and answered as a whole; a `Translation`."""

    def __init__(
        self, path: Endpoint, asked: dict[str, object], translate: Callable[[bytes], dict[str, object]]
    ) -> None:
        self.path: str = path
        self.request = encode(asked)
        self.streamed = False
        self.media_type = b"application/json"
        self._translate = translate

    def whole(self, body: bytes) -> bytes:
        """Translate a complete successful answer.

        Raises:
            UpstreamInvalidError: It is not what the engine should answer.
        """
        return encode(self._translate(body))

    def refusal(self, status: int, body: bytes) -> bytes:
        """Translate an error that the engine answers with."""
        return render(engine_message(body, status))

    def feed(self, data: bytes) -> bytes:  # noqa: ARG002 - as in the protocol
        """Return nothing: there is no stream."""
        return b""

    def finish(self) -> bytes | None:
        """Return None: there is no stream."""
        return None

    def failure(self, error: ProxyError) -> bytes:
        """Return what tells of an error."""
        return error_body(error)
