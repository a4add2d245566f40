"""The head of a request: what is forwarded of it, and how its body is framed."""

from collections.abc import Container

from ai_proxy.core.errors import HeadTooLargeError, MalformedRequestError, ProxyError
from ai_proxy.core.http import CLIENT, PRINCIPAL, is_sane_request_id
from ai_proxy.core.settings import Limits
from ai_proxy.gateway.http.wire import HOP_BY_HOP, Header, tokens, without_nominated

_OURS = frozenset({PRINCIPAL, CLIENT})
"""Headers that only we may send."""
_ENDS = (b"", b";", b" ", b"\t")
"""What may follow a media type (RFC 9110 section 8.3.1)."""
_NOTED = HOP_BY_HOP | _OURS | {b"host", b"content-length", b"content-type", b"expect", b"x-request-id"}


def check_head(target: bytes, headers: list[Header], limits: Limits) -> None:
    """Limit a complete head.

    Raises:
        HeadTooLargeError: It has too many headers or bytes.
    """
    if len(headers) > limits.max_headers:
        raise too_many_headers(limits)
    if head_size(target, headers) > limits.max_head:
        raise HeadTooLargeError(f"a request head may have {limits.max_head} bytes at most")


def too_many_headers(limits: Limits) -> HeadTooLargeError:
    """Return the error for a head with too many headers."""
    return HeadTooLargeError(f"a request may have {limits.max_headers} headers at most")


def head_size(target: bytes, headers: list[Header]) -> int:
    """Return the bytes of a head, but for its method and version."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


class Request:
    """The facts of one request head.

    Attributes:
        method: As sent.
        target: As sent, in origin or absolute form.
        lines: Pieces of the header lines to forward: name, separator, value, line end, and so on.
        is_http10: Whether the client speaks HTTP/1.0.
        close: Whether the connection ends after the response.
        length: Of the body, as stated; 0 without a body and for a chunked one.
        chunked: Whether the body is chunked.
        is_json: Whether the body is JSON, by its content type.
        expects_continue: Whether the client waits for a 100 before it sends the body.
        upgrade: The protocol to switch to; empty for plain HTTP.
        request_id: As sent, if sane; else empty.
        error: Why the request cannot be served; None when it can.
    """

    __slots__ = (
        "chunked",
        "close",
        "error",
        "expects_continue",
        "is_http10",
        "is_json",
        "length",
        "lines",
        "method",
        "request_id",
        "target",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes) -> None:
        self.method = method
        self.target = target
        self.lines: list[bytes] = []
        self.is_http10 = False
        self.close = False
        self.length = 0
        self.chunked = False
        self.is_json = False
        self.expects_continue = False
        self.upgrade = b""
        self.request_id = b""
        self.error: ProxyError | None = None

    def __repr__(self) -> str:
        path = self.target.partition(b"?")[0].decode("latin-1")
        return f"<Request [{self.method.decode('latin-1')} {path}]>"

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.chunked or self.length > 0

    def read(self, headers: list[Header], *, may_upgrade: bool) -> None:
        """Check and filter the headers; an error is noted, to be answered when its turn comes.

        The parser has already refused what is ambiguous: several lengths, a length beside chunks, line
        folding, bare line feeds, spaces before the colon.

        Args:
            headers: As parsed.
            may_upgrade: Whether the client asks, in due form, for another protocol.
        """
        lines = self.lines
        hosts = 0
        for name, value in headers:
            key = name.lower()
            if key not in _NOTED:
                lines += (name, b": ", value, b"\r\n")
            elif key == b"host":
                hosts += 1
            elif key == b"content-length":
                self.length = int(value)
            elif key == b"content-type":
                lines += (name, b": ", value, b"\r\n")
                self.is_json = value[:16].lower() == b"application/json" and value[16:17] in _ENDS
            elif key != b"connection":
                self._note(key, name, value, may_upgrade=may_upgrade)
            elif (rest := without_nominated(headers)) is not None:
                lines.clear()
                self.length, self.error = 0, None
                self.chunked = self.is_json = self.expects_continue = False
                self.upgrade = self.request_id = b""
                self.read(rest, may_upgrade=may_upgrade)
                return
        if hosts != 1 and not (hosts == 0 and self.is_http10):
            self.close = True
            self.error = MalformedRequestError("there must be exactly one Host header")
        if self.upgrade and self.has_body:
            self.upgrade = b""  # a body and a tunnel do not go together; RFC 9110 7.8 lets us ignore it

    def _note(self, key: bytes, name: bytes, value: bytes, *, may_upgrade: bool) -> None:
        """Take note of one of the rarer headers that mean something to us."""
        if key == b"x-request-id" and is_sane_request_id(value):
            self.request_id = value
            self.lines += (name, b": ", value, b"\r\n")
        elif key == b"transfer-encoding":
            self.chunked = True
            if tokens(value) != [b"chunked"] or self.is_http10:
                self.close = True
                self.error = MalformedRequestError(
                    "the only Transfer-Encoding taken is 'chunked', in HTTP/1.1"
                )
        elif key == b"expect":
            self.expects_continue = not self.is_http10 and value.strip().lower() == b"100-continue"
        elif (
            key == b"upgrade"
            and may_upgrade
            and not self.is_http10
            and not any(t.startswith(b"h2") for t in tokens(value))
        ):
            self.upgrade = value

    def header(self, key: bytes) -> bytes:
        """Return the value of a header that is forwarded; empty without one.

        Args:
            key: Its name in lower case.
        """
        lines = self.lines
        names = enumerate(lines[::4])
        return next((lines[4 * index + 2] for index, name in names if name.lower() == key), b"")

    def drop(self, keys: Container[bytes]) -> None:
        """Forward no header of these names, given in lower case."""
        lines = self.lines
        kept = [index for index, name in enumerate(lines[::4]) if name.lower() not in keys]
        self.lines = [piece for index in kept for piece in lines[4 * index : 4 * index + 4]]

    def framing(self, body_length: int) -> bytes:
        r"""Return the last header lines and the blank line, for a body of a length known by now.

        Args:
            body_length: -1 for a chunked body that is passed on as it comes.
        """
        if self.upgrade:
            return b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % self.upgrade
        if body_length < 0:
            return b"transfer-encoding: chunked\r\n\r\n"
        if body_length or self.method in (b"POST", b"PUT", b"PATCH"):
            return b"content-length: %d\r\n\r\n" % body_length
        return b"\r\n"

    def framing_only(self) -> bytes:
        """Return a head that says of the body's length what this one says, and nothing else."""
        framing = b"transfer-encoding: chunked" if self.chunked else b"content-length: %d" % self.length
        return b"POST / HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n" % framing
