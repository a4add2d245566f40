"""Rewritten responses to model requests: a transcoder, bytes in and bytes out, without chunk framing."""

import re
from dataclasses import dataclass

from ai_proxy.core.errors import ProxyError, UpstreamInvalidError
from ai_proxy.core.http import MAX_COLLECTED
from ai_proxy.core.service import Outcome
from ai_proxy.dialects.translation import Translation
from ai_proxy.gateway.http.response import outcome_of

EVENT_STREAM = b"text/event-stream"


_CODING = re.compile(rb"\ncontent-encoding:(?!\s*identity\s*\r)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WholeResponse:
    """A response that is known whole; its body is JSON."""

    status: int
    body: bytes


class ResponseRewriter:
    """Turns an engine's response into the one for its client.

    A stream that was asked for is rewritten as it comes. Anything else, such as an error, is collected and
    rewritten at its end.

    Attributes:
        streams: Whether the engine answers with the stream that was asked for.
        taken: Bytes of the engine's body so far, of which the client may have seen nothing yet.
        media_type: Of the stream for the client.

    Args:
        translation: Between the two dialects; None where the body stays as it is.
        streaming: Whether the client wants a stream.
    """

    __slots__ = (
        "_collected",
        "_error_event",
        "_latest",
        "_status",
        "streaming",
        "streams",
        "taken",
        "translation",
    )

    def __init__(self, translation: Translation | None, *, streaming: bool) -> None:
        self.translation = translation
        self.streaming = streaming
        self.streams = False
        self.taken = 0
        self._status = 0
        self._collected = bytearray()
        self._latest = b""
        self._error_event = b""

    @property
    def media_type(self) -> bytes:
        """Content type of the stream for the client."""
        return self.translation.media_type if self.translation is not None else EVENT_STREAM

    def head(self, status: int, head: list[bytes]) -> None:
        """Take the head of the engine's response.

        Raises:
            UpstreamInvalidError: Its body is encoded, and so cannot be read.
        """
        self._status = status
        self.streams = status == 200 and self.streaming and is_event_stream(head)
        if is_encoded(head):
            raise UpstreamInvalidError("the engine compresses its answer, though it was not asked to")

    def body(self, data: bytes) -> bytes:
        """Take a piece of the engine's body; return what the client gets for it.

        Raises:
            ProxyError: The piece cannot be translated.
        """
        self.taken += len(data)
        if self.streams:
            self._latest = data
            return data if self.translation is None else self.translation.feed(data)
        self._collected += data
        if len(self._collected) > MAX_COLLECTED:
            raise UpstreamInvalidError(f"the answer has more than {MAX_COLLECTED} bytes")
        return b""

    def end(self, *, head_sent: bool) -> WholeResponse | bytes:
        """Take the end of the engine's response.

        Args:
            head_sent: Whether the client has the head of a stream.

        Returns:
            The last bytes of the stream, or the whole response.

        Raises:
            ProxyError: The response has no good end.
        """
        translation, whole, status = self.translation, bytes(self._collected), self._status
        if self.streams:
            return translation.finish() if translation is not None else b""
        if translation is None:
            self._error_event = as_event(status, whole)
        elif not head_sent and status == 200 and not self.streaming:
            return WholeResponse(200, translation.whole(whole))
        elif not head_sent and status >= 400:
            return WholeResponse(status, translation.refusal(status, whole))
        raise UpstreamInvalidError(complaint(status, whole))

    def error_event(self, event: bytes, error: ProxyError) -> bytes:
        """Return what ends the client's stream with an error; empty where that would break its framing.

        Args:
            event: For a stream in the client's own dialect.
            error: What went wrong.
        """
        if self.translation is not None:
            return self.translation.failure(error)
        if self.streams and self._latest and not self._latest.endswith((b"\n\n", b"\r\n\r\n")):
            return b""
        return self._error_event or event

    @property
    def outcome(self) -> Outcome:
        """Outcome for a replica whose answer cannot be passed on; an error status is no failure of it."""
        return Outcome.BROKEN if self._status == 200 else outcome_of(self._status)


def is_event_stream(head: list[bytes]) -> bool:
    r"""Return whether the head of a response announces events.

    >>> is_event_stream([b"HTTP/1.1 200 OK\r\n", b"Content-Type", b": ", b"text/event-stream", b"\r\n"])
    True
    """
    return EVENT_STREAM in b"".join(head).lower()


def is_encoded(head: list[bytes]) -> bool:
    r"""Return whether the head of a response announces a body in a coding, such as gzip.

    >>> is_encoded([b"HTTP/1.1 200 OK\r\n", b"Content-Encoding", b": ", b"gzip", b"\r\n"])
    True
    >>> is_encoded([b"HTTP/1.1 200 OK\r\n", b"Content-Encoding", b": ", b"identity", b"\r\n"])
    False
    """
    return _CODING.search(b"".join(head)) is not None


def warning_line(warnings: tuple[str, ...]) -> bytes:
    r"""Return the header line that carries warnings.

    >>> warning_line(("a\r\nb", "c"))
    b'x-ai-proxy-warning: a  b; c\r\n'
    """
    text = "; ".join(warnings).replace("\r", " ").replace("\n", " ").encode("ascii", "replace")
    return b"x-ai-proxy-warning: %b\r\n" % text


def as_event(status: int, body: bytes) -> bytes:
    r"""Return an engine's own error as an event of a stream; empty when it is not one.

    >>> as_event(400, b'{"error": {\n"message": "no"}}')
    b'data: {"error": {"message": "no"}}\n\n'
    >>> as_event(200, b"{}"), as_event(500, b"<html>")
    (b'', b'')
    """
    if status == 200 or not body.lstrip().startswith(b"{"):
        return b""
    return b"data: %b\n\n" % b"".join(body.splitlines())


def complaint(status: int, body: bytes) -> str:
    """Describe an answer that came where a stream was expected.

    >>> complaint(500, b"out of memory")
    'the engine answers with status 500: out of memory'
    """
    if status == 200:
        return "the engine answers without the stream that was asked for"
    return f"the engine answers with status {status}: {body[:500].decode('utf-8', 'replace')}"
