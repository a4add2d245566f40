"""Requests in a multipart form, such as audio: passed on while they come, once the model is known."""

from ai_proxy.core.errors import InvalidRequestError, ProxyError
from ai_proxy.gateway.inference import ModelExchange
from ai_proxy.gateway.multipart import ModelField, boundary_of
from ai_proxy.gateway.pool import Pool


class Upload(ModelExchange):
    """One upload and its response."""

    __slots__ = ("ahead", "field")

    field: ModelField
    ahead: bytes
    """What came until the model was known, as the backend is to see it."""

    def route(self) -> None:
        """Take note of what the head says."""
        content_type = self.request.header(b"content-type")
        self._read_head(content_type)
        self.streamed = True
        self.streaming = False
        boundary = b""
        try:
            boundary = boundary_of(content_type)
        except InvalidRequestError as error:
            self.error = self.error or error
        self.field = ModelField(boundary)

    @property
    def is_ready(self) -> bool:
        """Whether enough of the request is here to begin: the model has to be known."""
        if self.error is None and not self.request_done:
            return self.field.model is not None
        return super().is_ready

    def add_body(self, data: bytes) -> None:
        """Take a piece of the request's body; look for the model first."""
        if self.error is not None or self.field.model is not None:
            super().add_body(data)
            return
        self.received += len(data)
        try:
            self.field.feed(data)
        except ProxyError as error:
            self.error = error

    def end_body(self) -> None:
        """The request has arrived whole."""
        if self.error is None:
            try:
                self.field.end()
            except ProxyError as error:
                self.error = error
        super().end_body()

    def _resolve(self) -> None:
        """Find who answers, and fit what has come to it."""
        target = self._find(self.field.model or "")
        self._choose_path(target)
        self.ahead = self.field.renamed(target.route.target)

    def _render(self, pool: Pool) -> bytes:
        """Return the request as it goes to the backend, with what is here of its body."""
        request, ahead = self.request, self.ahead
        if request.chunked:
            length, ahead = -1, b"%x\r\n%b\r\n" % (len(ahead), ahead)
        else:
            length = request.length + len(ahead) - len(self.field.held)
        return b"".join(
            (self._render_head(pool), self.traceparent, request.framing(length), ahead, self.body)
        )
