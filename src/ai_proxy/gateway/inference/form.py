"""Requests to a model in a multipart form, such as audio: passed on as they arrive once it is known."""

from ai_proxy.core.errors import InvalidRequestError, ProxyError
from ai_proxy.gateway.http.body import LAST_CHUNK, frame_chunk
from ai_proxy.gateway.http.multipart import ModelField, boundary_of


class FormBody:
    """A form that is held until its `model` field has come, and passed on as it arrives from then on.

    Attributes:
        error: Why the form cannot be split into parts; None when it can.

    Args:
        content_type: As the client sent it.
        chunked: Whether the body is framed in chunks, on both sides.
    """

    __slots__ = ("_chunked", "_field", "error", "is_known")

    def __init__(self, content_type: bytes, *, chunked: bool) -> None:
        self.is_known = False
        self.error: ProxyError | None = None
        self._chunked = chunked
        boundary = b""
        try:
            boundary = boundary_of(content_type)
        except InvalidRequestError as error:
            self.error = error
        self._field = ModelField(boundary)

    @property
    def model(self) -> str:
        """The field's value; empty until it has come."""
        return self._field.model or ""

    def add(self, data: bytes) -> bytes:
        """Take a piece: hold it for the model's name, or frame it.

        Raises:
            InvalidRequestError: The form has no valid `model` field before its files, or more than one.
        """
        was_known, self.is_known = self.is_known, self._field.feed(data)
        if not was_known:
            return b""
        return frame_chunk(data) if self._chunked else data

    def end(self) -> bytes:
        """Return the last chunk, where there are chunks.

        Raises:
            InvalidRequestError: There is no such field.
        """
        self._field.end()
        return LAST_CHUNK if self._chunked else b""

    def beginning(self, model: str) -> tuple[bytes, int]:
        """Return what was held, for the backend, with another name of the model in it.

        Returns:
            The bytes, framed; and by how many the whole body has grown.
        """
        renamed = self._field.renamed(model)
        growth = len(renamed) - len(self._field.held)
        return frame_chunk(renamed) if self._chunked else renamed, growth
