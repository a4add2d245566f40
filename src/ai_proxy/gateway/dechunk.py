"""Connections to backends for exchanges that take a body without its chunk framing."""

import httptools

from ai_proxy.gateway.upstream import CHUNKED, Receiver, UpstreamConnection


class DechunkingConnection(UpstreamConnection):
    """Takes the chunk framing off: for clients of HTTP/1.0, and where a body is translated."""

    __slots__ = ()

    def _done(self, exchange: Receiver) -> None:
        self.keep_alive = False  # the next client may want the chunks
        super()._done(exchange)

    def on_body(self, data: bytes) -> None:
        """Pass on the content of a chunk."""
        if self.framing is CHUNKED and self.exchange is not None:
            self.exchange.response_body(data)

    def _receive_chunked(self, exchange: Receiver, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.message_complete:  # else it is what follows the response that is bad
                self._invalid(f"bad chunked body: {error}")
                return
        if self.message_complete:
            self._done(exchange)

    def _start_chunked(self, exchange: Receiver, status: int, head: list[bytes], body: bytes) -> None:
        exchange.response_head(status, head, b"")
        # The parser has seen these bytes while the framing was still unknown: show them to a fresh one.
        self.parser = httptools.HttpResponseParser(self)
        self.message_complete = False
        self.parser.feed_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        self._receive_chunked(exchange, body)
