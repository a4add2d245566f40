"""Responses to model requests that are written anew, not passed on as they came."""

from email.utils import formatdate
from typing import TYPE_CHECKING

from ai_proxy.core.errors import ProxyError, UpstreamInvalidError
from ai_proxy.core.service import Outcome
from ai_proxy.gateway.exchange import RESPONDING, outcome_of
from ai_proxy.gateway.wire import status_line

if TYPE_CHECKING:
    from ai_proxy.gateway.inference import ModelExchange

EVENTS = b"text/event-stream"
MAX_WHOLE = 64 * 1024 * 1024
"""Most bytes of an answer that is translated as a whole."""


class Shaper:
    """Writes the response of an exchange: translated, or as the rest of a stream that was begun early.

    It is fed the body without framing. What an engine streams is passed on as it comes; anything else, such
    as its errors, is collected first.

    Attributes:
        begun: Whether the head of a stream was sent; it may have been before there was a lease.
        taken: Bytes of the engine's body so far, of which the client may see nothing yet.
    """

    def __init__(self, exchange: "ModelExchange") -> None:
        self.begun = False
        self.taken = 0
        self._exchange = exchange
        self._status = 0
        self._passing = False
        self._collected = bytearray()
        self._refusal = b""

    def begin(self, media_type: bytes) -> None:
        """Write the head of a stream."""
        exchange, request = self._exchange, self._exchange.request
        self.begun = True
        exchange.status = 200
        lines = [
            status_line(200),
            b"content-type: " + media_type,
            b"cache-control: no-cache",
            b"x-request-id: " + exchange.request_id(),
            b"date: " + formatdate(usegmt=True).encode(),
        ]
        if exchange.warnings:
            lines.append(b"x-ai-proxy-warning: " + in_header(exchange.warnings))
        if not request.is_http10:
            lines.append(b"transfer-encoding: chunked")
        if exchange.close or exchange.gateway.closing or request.is_http10:
            exchange.close = True
            lines.append(b"connection: close")
        exchange.client.transport.write(b"\r\n".join([*lines, request.principal.cors + b"\r\n"]))

    def tell_of_load(self, service_id: str, waited: float, expected: float | None) -> None:
        """Tell the client, in a comment, that it is not forgotten.

        Args:
            service_id: Who loads.
            waited: Seconds since the request came.
            expected: Seconds that it took the last time; None when that is not known.
        """
        if not self.begun:
            self.begin(EVENTS)
        of = f"/{expected:.0f}" if expected else ""
        self.write(f": loading {service_id} {waited:.0f}{of} s\n\n".encode())

    def head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Take the head of the engine's response.

        Raises:
            UpstreamInvalidError: Its body cannot be read.
        """
        exchange = self._exchange
        exchange.first_byte = exchange.gateway.now() - exchange.started
        exchange.body = b""
        self._status = status
        self._passing = status == 200 and exchange.streaming and is_event_stream(head)
        if is_encoded(head):
            raise UpstreamInvalidError("the engine compresses its answer, though it was not asked to")
        if self._passing:
            self._pass()
        if body:
            self.body(body)

    def _pass(self) -> None:
        """Begin to pass a stream on."""
        exchange = self._exchange
        exchange.phase = RESPONDING
        if not self.begun:
            translation = exchange.translation
            self.begin(translation.media_type if translation is not None else EVENTS)
        if exchange.client.write_paused and exchange.upstream is not None:
            exchange.upstream.pause()

    def body(self, data: bytes) -> None:
        """Take some of its body.

        Raises:
            ProxyError: It cannot be translated.
        """
        self.taken += len(data)
        self._exchange.see(data)
        if self._passing:
            translation = self._exchange.translation
            self.write(data if translation is None else translation.feed(data))
            return
        self._collected += data
        if len(self._collected) > MAX_WHOLE:
            raise UpstreamInvalidError(f"the answer has more than {MAX_WHOLE} bytes")

    def write(self, data: bytes) -> None:
        """Send some of the body to the client."""
        if data:
            exchange = self._exchange
            exchange.sent += len(data)
            framed = data if exchange.request.is_http10 else b"%x\r\n%b\r\n" % (len(data), data)
            exchange.client.transport.write(framed)

    def finish(self) -> None:
        """Write what is left when the engine's response has ended.

        Raises:
            ProxyError: It has no good end.
        """
        exchange = self._exchange
        translation, whole = exchange.translation, bytes(self._collected)
        if self._passing:
            if translation is not None:
                self.write(translation.finish())
            if not exchange.request.is_http10:
                exchange.client.transport.write(b"0\r\n\r\n")
        elif self.begun or translation is None:
            self._refusal = as_event(self._status, whole) if translation is None else b""
            raise UpstreamInvalidError(complaint(self._status, whole))
        elif self._status == 200 and not exchange.streaming:
            self.write_whole(200, translation.whole(whole))
        elif self._status >= 400:
            self.write_whole(self._status, translation.refusal(self._status, whole))
        else:
            raise UpstreamInvalidError(complaint(self._status, whole))

    def write_whole(self, status: int, body: bytes) -> None:
        """Write a response that is known whole."""
        head = [
            b"HTTP/1.1 %d \r\n" % status,
            b"content-type: application/json\r\n",
            b"content-length: %d\r\n" % len(body),
        ]
        self._exchange.send_head(status, head, body)

    @property
    def outcome(self) -> Outcome:
        """Say what an answer that cannot be passed on tells of the replica: an error is not its fault."""
        return Outcome.BROKEN if self._status == 200 else outcome_of(self._status)

    def last_event(self, error: ProxyError) -> bytes:
        """Return what tells of an error in the stream; empty where that would break its framing."""
        exchange = self._exchange
        if exchange.translation is not None:
            return exchange.translation.failure(error)
        latest = exchange.last[-1] if exchange.last is not None else exchange.first
        if self._passing and latest and not latest.endswith((b"\n\n", b"\r\n\r\n")):
            return b""
        return self._refusal or exchange.entry.dialect.event(error, exchange.request_id().decode())


def is_event_stream(head: list[bytes]) -> bool:
    r"""Tell whether the head of a response announces events.

    >>> is_event_stream([b"HTTP/1.1 200 OK\r\n", b"Content-Type", b": ", b"text/event-stream", b"\r\n"])
    True
    """
    return EVENTS in b"".join(head).lower()


def is_encoded(head: list[bytes]) -> bool:
    r"""Tell whether the head of a response announces a body in a coding, such as gzip.

    >>> is_encoded([b"HTTP/1.1 200 OK\r\n", b"Content-Encoding", b": ", b"gzip", b"\r\n"])
    True
    """
    return b"\ncontent-encoding: " in b"".join(head).lower()


def in_header(warnings: tuple[str, ...]) -> bytes:
    r"""Return the value of a header that tells warnings.

    >>> in_header(("a\r\nb", "c"))
    b'a  b; c'
    """
    return "; ".join(warnings).replace("\r", " ").replace("\n", " ").encode("ascii", "replace")


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
    """Say what an answer says that came where a stream was expected.

    >>> complaint(500, b"out of memory")
    'the engine answers with status 500: out of memory'
    """
    if status == 200:
        return "the engine answers without the stream that was asked for"
    return f"the engine answers with status {status}: {body[:500].decode('utf-8', 'replace')}"
