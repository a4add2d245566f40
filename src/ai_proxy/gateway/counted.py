"""Requests to a service, by path, of callers whose tokens are limited."""

from collections import deque
from typing import TYPE_CHECKING

from ai_proxy.gateway.exchange import Exchange
from ai_proxy.gateway.request import Request
from ai_proxy.gateway.tokens import KEPT, SEARCHED, count_tokens

if TYPE_CHECKING:
    from ai_proxy.gateway.connection import ClientConnection
    from ai_proxy.gateway.listener import Gateway


class CountedExchange(Exchange):
    """One such request: what its response says of tokens is noted as it passes."""

    __slots__ = ("events", "first", "last")

    def __init__(self, client: "ClientConnection", gateway: "Gateway", request: Request) -> None:
        super().__init__(client, gateway, request)
        self.first = b""
        self.last: deque[bytes] | None = None
        self.events = 0

    def response_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Send the head of the response on."""
        self._see(body)
        super().response_head(status, head, body)

    def response_body(self, data: bytes) -> None:
        """Send bytes of the body on."""
        self._see(data)
        super().response_body(data)

    def _see(self, data: bytes) -> None:
        self.events += data.count(b"data: {")
        piece = data[-SEARCHED:]
        if self.last is not None:
            self.last.append(piece)
        elif self.first:
            self.last = deque((self.first, piece), KEPT)
        else:
            self.first = data[:SEARCHED] if len(data) > SEARCHED else data

    def tokens_used(self) -> int:
        """Return what counts against a limit of tokens."""
        return sum(max(0, count) for count in count_tokens(self.first, self.last, self.events))
