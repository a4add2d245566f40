"""Answers to browsers that ask, for a web page, before they call (Fetch standard, CORS-preflight)."""

from email.utils import formatdate

from ai_proxy.core.service import Outcome
from ai_proxy.gateway.exchange import Exchange
from ai_proxy.gateway.wire import status_line


class PreflightExchange(Exchange):
    """One such question, which the guard has answered already: no backend hears of it."""

    __slots__ = ()

    def route(self) -> None:
        """It goes nowhere."""

    def begin(self) -> None:
        """Write the answer."""
        if self.error is not None:
            self.fail(self.error)
            return
        self.status = 204
        end = b"connection: close\r\n\r\n" if self.close else b"\r\n"
        head = b"%b\r\nx-request-id: %b\r\ndate: %b\r\n%b%b" % (
            status_line(204),
            self.request_id(),
            formatdate(usegmt=True).encode(),
            self.request.preflight,
            end,
        )
        self.client.transport.write(head)
        self._finish(Outcome.OK)
