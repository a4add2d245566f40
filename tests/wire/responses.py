"""What backends send: the table of RFC 9110 and 9112 for responses."""

from tests.wire.table import CLOSED, CUT, INVALID, KEPT, WHOLE, ResponseRow

OK = b"HTTP/1.1 200 OK\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
NEXT = OK + b"Content-Length: 6\r\n\r\npoison"
"""A response that nobody has asked for."""


# Judgements, where h11 is of another opinion.

OLD_KEEP_ALIVE = "RFC 9112 section 9.3: a client may keep such a connection. h11 knows none of HTTP/1.0."
ONE_LENGTH = (
    "RFC 9112 section 6.3 lets a recipient refuse equal lengths or merge them, as h11 does. "
    "We refuse: a backend that says it twice is not to be trusted about it."
)
AMBIGUOUS = (
    "RFC 9112 section 6.1 lets a recipient take the chunks, as h11 does. "
    "We refuse: somebody between may have taken the length."
)
OLD_INTERIM = "RFC 9110 section 15.2: HTTP/1.0 has no interim responses. h11 skips it; we refuse it."
SIZE_SPACE = "RFC 9112 section 7.1 has no space there. h11 skips it; we refuse it."
EXTENSION = "h11 lets any byte but LF be in an extension. RFC 9112 section 7.1.1 does not."
LINE_FEED = (
    "RFC 9112 section 2.2 lets a recipient take a bare LF for a line end, as h11 does. We pass on no "
    "such head."
)
TRAILER = "RFC 9110 section 6.5.1 forbids framing in trailers. h11 leaves them to its caller."
FOLDED = "RFC 9112 section 5.2 lets a proxy refuse a folded line or replace the fold, as h11 does. We refuse."
SURPLUS = (
    "h11 keeps what follows apart. We pass chunks on as they came, so we pass on none that something follows."
)
CONTROL = "RFC 9110 section 5.5 calls such bytes invalid. h11 passes them on; we refuse them."
MINOR = (
    "RFC 9110 section 2.5: h11 is right to take it for HTTP/1.1. Nobody speaks it; we refuse what we "
    "do not know."
)
MAJOR = "h11 takes any version. HTTP/2 has other messages; we refuse it."
SIZE = "h11 leaves the size of a complete head to its caller. We bound it."


type Cells = tuple[str, bytes, bytes, bool, str, int, bytes, str, str]


def table(section: str, *rows: Cells) -> tuple[ResponseRow, ...]:
    """Return the rows of a section."""
    return tuple(ResponseRow(section, *row) for row in rows)


def whole(
    name: str,
    sent: bytes,
    body: bytes = b"",
    *,
    status: int = 200,
    method: bytes = b"GET",
    ends: bool = False,
    connection: str = KEPT,
    h11: str = "",
) -> Cells:
    """Return a row of what is passed on to its end."""
    return name, method, sent, ends, WHOLE, status, body, CLOSED if ends else connection, h11


def cut(name: str, sent: bytes, body: bytes = b"", *, ends: bool = True, h11: str = "") -> Cells:
    """Return a row of what is passed on and breaks off visibly."""
    return name, b"GET", sent, ends, CUT, 200, body, CLOSED, h11


def invalid(name: str, sent: bytes, *, method: bytes = b"GET", ends: bool = False, h11: str = "") -> Cells:
    """Return a row of what is answered with a 502."""
    return name, method, sent, ends, INVALID, 502, b"", CLOSED, h11


def chunks(lines: bytes) -> bytes:
    """Return a response with these chunks."""
    return OK + TE + b"\r\n" + lines


BODIES = table(
    "The length of a body (RFC 9112 section 6.3)",
    whole("a length", OK + b"Content-Length: 3\r\n\r\nabc", b"abc"),
    whole("a length of 0", OK + b"Content-Length: 0\r\n\r\n"),
    whole("a length with leading zeros", OK + b"Content-Length: 003\r\n\r\nabc", b"abc"),
    whole("a length, and the end of the connection", OK + b"Content-Length: 3\r\n\r\nabc", b"abc", ends=True),
    whole("chunks", chunks(b"3\r\nabc\r\n0\r\n\r\n"), b"abc"),
    whole("no chunk but the last", chunks(b"0\r\n\r\n")),
    whole("a coding in capitals", OK + b"Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
    whole("until the end of the connection", OK + b"\r\nabc", b"abc", ends=True),
    whole("nothing until the end of the connection", OK + b"\r\n", ends=True),
    whole("a status without a reason", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
    whole("204", b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    whole("304", b"HTTP/1.1 304 Not Modified\r\n\r\n", status=304),
    whole(
        "304 with the length of what it has not",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
        status=304,
    ),
    whole("204 with a length", b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", status=204),
    whole(
        "204 with a body",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
        status=204,
        connection=CLOSED,
    ),
    whole(
        "204 with chunks",
        b"HTTP/1.1 204 No Content\r\n" + TE + b"\r\n3\r\nabc\r\n0\r\n\r\n",
        status=204,
        connection=CLOSED,
    ),
    whole(
        "304 with a body",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc",
        status=304,
        connection=CLOSED,
    ),
    whole("the head of a HEAD", OK + b"Content-Length: 3\r\n\r\n", method=b"HEAD"),
    whole("the head of a HEAD with chunks", OK + TE + b"\r\n", method=b"HEAD"),
    whole("a HEAD with a body", OK + b"Content-Length: 3\r\n\r\nabc", method=b"HEAD", connection=CLOSED),
    whole(
        "HTTP/1.0 with a length",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"abc",
        connection=CLOSED,
    ),
    whole(
        "HTTP/1.0 with keep-alive",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
        b"abc",
        h11=OLD_KEEP_ALIVE,
    ),
    whole("HTTP/1.0 until the end of the connection", b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc", ends=True),
    whole(
        "Connection: close",
        OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc",
        b"abc",
        connection=CLOSED,
    ),
    invalid("two lengths", OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    invalid(
        "the same length twice", OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", h11=ONE_LENGTH
    ),
    invalid("a list of lengths", OK + b"Content-Length: 3, 3\r\n\r\nabc", h11=ONE_LENGTH),
    invalid("a length with a plus", OK + b"Content-Length: +3\r\n\r\nabc"),
    invalid("a negative length", OK + b"Content-Length: -3\r\n\r\nabc"),
    invalid("a hexadecimal length", OK + b"Content-Length: 0x3\r\n\r\nabc"),
    invalid("an empty length", OK + b"Content-Length:\r\n\r\nabc"),
    invalid("a length beyond 64 bits", OK + b"Content-Length: 18446744073709551619\r\n\r\nabc"),
    invalid(
        "a length and chunks",
        OK + b"Content-Length: 3\r\n" + TE + b"\r\n3\r\nabc\r\n0\r\n\r\n",
        h11=AMBIGUOUS,
    ),
    invalid(
        "chunks and a length", OK + TE + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", h11=AMBIGUOUS
    ),
    invalid("chunked twice", OK + TE + TE + b"\r\n3\r\nabc\r\n0\r\n\r\n"),
    invalid(
        "chunked twice in a list", OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    ),
    invalid("gzip", OK + b"Transfer-Encoding: gzip\r\n\r\nabc"),
    invalid("gzip, then chunked", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    invalid("identity", OK + b"Transfer-Encoding: identity\r\n\r\nabc"),
    invalid("xchunked", OK + b"Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    whole(
        "chunks in HTTP/1.0",
        b"HTTP/1.0 200 OK\r\n" + TE + b"\r\n3\r\nabc\r\n0\r\n\r\n",
        b"abc",
        connection=CLOSED,
    ),
)

INTERIM = table(
    "Interim responses and switching (RFC 9110 section 15.2)",
    whole(
        "100 before the response",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc",
        b"abc",
    ),
    whole(
        "102 and 103 before the response",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + OK
        + b"Content-Length: 3\r\n\r\nabc",
        b"abc",
    ),
    whole(
        "100 with a length",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc",
        b"abc",
    ),
    invalid("100 and nothing else", b"HTTP/1.1 100 Continue\r\n\r\n", ends=True),
    invalid(
        "100 with a body",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc" + OK + b"Content-Length: 0\r\n\r\n",
    ),
    invalid(
        "100 in HTTP/1.0",
        b"HTTP/1.0 100 Continue\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        h11=OLD_INTERIM,
    ),
    invalid(
        "101 that nobody asked for",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
    ),
    invalid("101 to nothing", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
)

CHUNK_LINES = table(
    "Chunks (RFC 9112 section 7.1)",
    whole("an extension", chunks(b"3;a=b\r\nabc\r\n0\r\n\r\n"), b"abc"),
    whole("a trailer", chunks(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"), b"abc"),
    invalid("a size that is none", chunks(b"zz\r\nabc\r\n0\r\n\r\n")),
    invalid("no size", chunks(b"\r\nabc\r\n0\r\n\r\n")),
    invalid("a negative size", chunks(b"-3\r\nabc\r\n0\r\n\r\n")),
    invalid("a size with a prefix", chunks(b"0x3\r\nabc\r\n0\r\n\r\n")),
    invalid("a space after a size", chunks(b"3 \r\nabc\r\n0\r\n\r\n"), h11=SIZE_SPACE),
    invalid("a size beyond 64 bits", chunks(b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n")),
    invalid("a bare LF after a size", chunks(b"3\nabc\r\n0\r\n\r\n")),
    invalid("a bare CR after a size", chunks(b"3\rabc\r\n0\r\n\r\n")),
    invalid("a bare LF after the data", chunks(b"3\r\nabc\n0\r\n\r\n")),
    invalid("more data than said", chunks(b"3\r\nabcdef\r\n0\r\n\r\n")),
    invalid("a bare LF in an extension", chunks(b"3;a\nabc\r\n0\r\n\r\n")),
    invalid("a NUL in an extension", chunks(b"3;\x00\r\nabc\r\n0\r\n\r\n"), h11=EXTENSION),
    invalid("a bare LF at the very end", chunks(b"3\r\nabc\r\n0\r\n\n"), h11=LINE_FEED),
    invalid("a trailer without a colon", chunks(b"3\r\nabc\r\n0\r\nX-Sum\r\n\r\n")),
    invalid(
        "a trailer that names a length", chunks(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"), h11=TRAILER
    ),
    invalid("a folded trailer", chunks(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n 2\r\n\r\n"), h11=FOLDED),
)

ENDS = table(
    "Ends that come too early, and what comes too late (RFC 9112 sections 6.3, 8 and 9.2)",
    cut("an end within a length", OK + b"Content-Length: 9\r\n\r\nabc", b"abc"),
    cut("an end within a chunk", chunks(b"9\r\nabc"), b"abc"),
    cut("an end between chunks", chunks(b"3\r\nabc\r\n"), b"abc"),
    cut("an end before the last line end", chunks(b"3\r\nabc\r\n0\r\n"), b"abc"),
    cut("an end within a trailer", chunks(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n"), b"abc"),
    invalid("an end within the head", OK + b"Content-Le", ends=True),
    invalid("an end before anything", b"", ends=True),
    whole(
        "a second response behind a length",
        OK + b"Content-Length: 3\r\n\r\nabc" + NEXT,
        b"abc",
        connection=CLOSED,
    ),
    whole(
        "a second response behind a length of 0", OK + b"Content-Length: 0\r\n\r\n" + NEXT, connection=CLOSED
    ),
    whole(
        "a second response behind a 304",
        b"HTTP/1.1 304 Not Modified\r\n\r\n" + NEXT,
        status=304,
        connection=CLOSED,
    ),
    whole(
        "a second response behind a HEAD",
        OK + b"Content-Length: 3\r\n\r\n" + NEXT,
        method=b"HEAD",
        connection=CLOSED,
    ),
    invalid("a second response behind chunks", chunks(b"3\r\nabc\r\n0\r\n\r\n") + NEXT, h11=SURPLUS),
    invalid("line ends behind chunks", chunks(b"3\r\nabc\r\n0\r\n\r\n\r\n"), h11=SURPLUS),
    whole("line ends behind a length", OK + b"Content-Length: 3\r\n\r\nabc\r\n", b"abc", connection=CLOSED),
)

LINES = table(
    "Lines of a head (RFC 9112 sections 2.2, 4 and 5)",
    whole("bytes beyond ASCII in a value", OK + b"A: \xc3\xa4\r\nContent-Length: 0\r\n\r\n"),
    whole("an empty value", OK + b"A:\r\nContent-Length: 0\r\n\r\n"),
    invalid("an empty line before the response", b"\r\n" + OK + b"Content-Length: 0\r\n\r\n"),
    invalid("bare LF throughout", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", ends=True, h11=LINE_FEED),
    invalid("a bare LF after a header", OK + b"A: b\nContent-Length: 0\r\n\r\n", h11=LINE_FEED),
    invalid("a bare CR in a value", OK + b"A: b\rContent-Length: 3\r\n\r\nabc"),
    invalid("a folded header", OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n", h11=FOLDED),
    invalid("a folded length", OK + b"Content-Length:\r\n 3\r\n\r\nabc", h11=FOLDED),
    invalid("a space before a colon", OK + b"Content-Length : 0\r\n\r\n"),
    invalid("no colon", OK + b"Abc\r\nContent-Length: 0\r\n\r\n"),
    invalid("no name", OK + b": b\r\nContent-Length: 0\r\n\r\n"),
    invalid("a NUL in a value", OK + b"A: \x00\r\nContent-Length: 0\r\n\r\n"),
    invalid("a control byte in a value", OK + b"A: \x01\r\nContent-Length: 0\r\n\r\n", h11=CONTROL),
    invalid("a status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    invalid("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    invalid("a status of letters", b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"),
    invalid("a status below 100", b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
    invalid("no status", b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
    invalid("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", h11=MAJOR),
    invalid("HTTP/1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", h11=MINOR),
    invalid("HTTP/0.9", b"<html>hello</html>", ends=True),
    invalid("ICY", b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n"),
    invalid("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46"),
    invalid(
        "a head that is too large", OK + b"A: " + b"b" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n", h11=SIZE
    ),
)

RESPONSES = (*BODIES, *INTERIM, *CHUNK_LINES, *ENDS, *LINES)
