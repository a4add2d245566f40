"""Requests to a service, by path, of callers whose tokens are limited."""

from collections import deque

from ai_proxy.gateway.exchange import Exchange
from ai_proxy.gateway.tokens import KEPT, SEARCHED, count_tokens, known

EVENT = b"data: {"
"""How an event with something in it begins, as engines write them."""


class CountedExchange(Exchange):
    """One such request: what its response says of tokens is noted as it passes."""

    __slots__ = ("events", "first", "last")

    first: bytes
    last: deque[bytes] | None
    events: int

    def response_head(self, status: int, head: list[bytes], body: bytes) -> None:
        """Send the head of the response on."""
        self.first, self.last = body, None
        self.events = body.count(EVENT)
        super().response_head(status, head, body)

    def response_body(self, data: bytes) -> None:
        """Send bytes of the body on."""
        self.events += data.count(EVENT)
        if self.last is None:
            self.first, self.last = self.first[:SEARCHED], deque((self.first[-SEARCHED:],), KEPT)
        self.last.append(data[-SEARCHED:])
        self.sent += len(data)
        self.client.transport.write(data)

    def tokens_used(self) -> int:
        """Return what counts against a limit of tokens."""
        return known(count_tokens(self.first, self.last, self.events)) if self.first_byte >= 0 else 0
