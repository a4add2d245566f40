"""The head of a response: what is passed on of it, and how its body is framed."""

from ai_proxy.core.service import Outcome
from ai_proxy.gateway.http.wire import BUSY, HOP_BY_HOP, Header, status_line, without_nominated

UNSTATED, AMBIGUOUS = -1, -2

STATUS_LINES = {status: b"%b\r\n" % status_line(status) for status in range(100, 600)}
"""Status lines by status: a backend's own reason phrase is not passed on."""

OURS = b"x-ai-proxy-"
"""Prefix of headers that only the proxy itself may send."""

_NOT_FORWARDED = HOP_BY_HOP | {b"x-request-id"}

LONGEST_SIZE = 128
"""Bytes of the longest line that states the size of a chunk, with some reserve."""

INTERIM = b"HTTP/1.1 1"
SWITCHING = b"HTTP/1.1 101"


def filter_response(headers: list[Header], lines: list[bytes], *, is_own: bool = False) -> tuple[int, bool]:
    r"""Add to `lines` what may be passed on (RFC 9110 section 7.6.1), without an X-Request-ID but ours.

    Args:
        headers: Of the response.
        lines: The head for the client.
        is_own: Whether the proxy itself answers, and so may send its own headers.

    Returns:
        The stated length, UNSTATED or AMBIGUOUS; and whether the body is chunked.

    >>> lines: list[bytes] = []
    >>> filter_response([(b"Content-Length", b"5"), (b"Connection", b"x-a"), (b"X-A", b"1")], lines)
    (5, False)
    >>> b"".join(lines)
    b'Content-Length: 5\r\n'
    """
    length = UNSTATED
    chunked = False
    kept = len(lines)
    for name, value in headers:
        key = name.lower()
        if key == b"content-length":
            digits = value.strip()
            length = int(digits) if digits.isdigit() and length == UNSTATED else AMBIGUOUS
        elif key in _NOT_FORWARDED:
            if key == b"transfer-encoding":
                if chunked or value.strip().lower() != b"chunked":
                    length = AMBIGUOUS
                chunked = True
            elif key == b"connection" and (rest := without_nominated(headers)) is not None:
                del lines[kept:]
                return filter_response(rest, lines, is_own=is_own)
            continue
        elif key[:11] == OURS and not is_own:
            continue
        lines += (name, b": ", value, b"\r\n")
    return (AMBIGUOUS if chunked and length != UNSTATED else length), chunked


def skip_interim(data: bytes) -> tuple[bytes, int]:
    r"""Leave out interim responses, which are between the backend and us (RFC 9110 section 15.2).

    Returns:
        What follows them, and the index in it of the blank line that ends a head; -1 when it has not come.

    >>> skip_interim(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    (b'HTTP/1.1 204 No Content\r\n\r\n', 23)
    >>> skip_interim(b"HTTP/1.1 101 Switching Protocols\r\n")
    (b'HTTP/1.1 101 Switching Protocols\r\n', -1)
    """
    start, end = 0, data.find(b"\r\n\r\n")
    while end >= 0 and data.startswith(INTERIM, start) and not data.startswith(SWITCHING, start):
        start = end + 4
        end = data.find(b"\r\n\r\n", start)
    if not start:
        return data, end
    return data[start:], end - start if end >= 0 else -1


def ends_in_surplus(data: bytes) -> bool:
    r"""Tell whether line ends follow the end of a chunked message, of which `data` is the last that came.

    >>> ends_in_surplus(b"0\r\n\r\n"), ends_in_surplus(b"0\r\n\r\n\r\n"), ends_in_surplus(b"\n")
    (False, True, False)
    """
    return data[-1:] != b"\n" or data[-5:-4] in (b"\r", b"\n")


def is_within_line(data: bytes) -> bool:
    r"""Tell whether `data`, of a chunked body, is a part of one line, or of the content of one chunk.

    The parser keeps a line of trailers until its end, however long it is, and never looks at content. So a
    byte that no line may have, in place of the last one, tells them apart. A short line may be a size.

    >>> is_within_line(b"y" * 200), is_within_line(b"5\r\nhello"), is_within_line(b"y" * 200 + b"\r")
    (True, False, False)
    """
    return len(data) > LONGEST_SIZE and data[-1:] != b"\r" and b"\n" not in data


def retry_after(headers: list[Header]) -> float:
    """Return the seconds that a Retry-After header asks for; 0 without one, and for a date.

    >>> retry_after([(b"Retry-After", b"30")]), retry_after([(b"Retry-After", b"Wed, 21 Oct 2026")])
    (30.0, 0.0)
    """
    values = [value.strip() for name, value in headers if name.lower() == b"retry-after"]
    return float(values[0]) if values and values[0].isdigit() and len(values[0]) < 10 else 0.0


def outcome_of(status: int) -> Outcome:
    """Return the outcome for the replica that answered with a status.

    >>> outcome_of(404), outcome_of(429), outcome_of(500)
    (<Outcome.OK: 'ok'>, <Outcome.OVERLOADED: 'overloaded'>, <Outcome.SERVER_ERROR: 'server_error'>)
    """
    if status in BUSY:
        return Outcome.OVERLOADED
    return Outcome.SERVER_ERROR if status >= 500 else Outcome.OK
