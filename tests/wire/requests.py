"""What clients send: the table of RFC 9110 and 9112 for requests."""

from tests.wire.table import CHUNKED, CLOSED, KEPT, RequestRow, Seen, seen

GET = b"GET /service/svc/x HTTP/1.1\r\nHost: test\r\n"
POST = b"POST /service/svc/x HTTP/1.1\r\nHost: test\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /service/svc/smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
EMPTY = b"0\r\n\r\n"
ABC = b"3\r\nabc\r\n0\r\n\r\n"


# Judgements, where h11 is of another opinion.

ONE_LENGTH = (
    "RFC 9112 section 6.3 lets a recipient refuse equal lengths or merge them. "
    "We refuse: the next recipient may do neither."
)
BOUNDLESS = (
    "h11 waits for a body that nobody can send. We refuse a number that a backend could read as a "
    "smaller one."
)
AMBIGUOUS = (
    "RFC 9112 section 6.1 lets a server refuse it or take the chunks, as h11 does. "
    "We refuse: the next recipient may take the length."
)
FOLDED = (
    "RFC 9112 section 5.2 lets a server refuse a folded line or replace the fold, as h11 does. We refuse."
)
FOLDED_AT_ONCE = "h11 takes the line for a fold of Host, so that the chunks are no body. We refuse any fold."
LINE_FEED = (
    "RFC 9112 section 2.2 lets a recipient take a bare LF for a line end, as h11 does. We refuse: "
    "others may not."
)
TABS = (
    "RFC 9110 section 5.6.3 allows the tabs. h11 is right; we refuse a coding that some recipients "
    "do not recognise."
)
OLD_CHUNKS = (
    "RFC 9112 section 6.1: the framing of such a message is faulty. h11 reads it and closes; we refuse it."
)
EXTENSION = (
    "h11 lets any byte but LF be in an extension. RFC 9112 section 7.1.1 does not; others may end "
    "the line there."
)
SIZE_SPACE = "RFC 9112 section 7.1 has no space there. h11 skips it; we refuse it."
TRAILER = "RFC 9110 section 6.5.1 forbids framing in trailers. h11 leaves them to its caller."
EMPTY_LINE = "RFC 9112 section 2.2: a server should ignore at least one empty line there. h11 refuses it."
CONTROL = "RFC 9110 section 5.5 calls such bytes invalid. h11 passes them on; we refuse them."
SPACES = (
    "RFC 9112 section 3 lets a recipient split the line at any space; we send it on with one. h11 refuses it."
)
MINOR = (
    "RFC 9110 section 2.5: h11 is right to take it for HTTP/1.1. Nobody speaks it; we refuse what we "
    "do not know."
)
MAJOR = "h11 takes any version. HTTP/2 has other messages; we refuse it."
PREFACE = "h11 takes the preface for a request and refuses what follows. We refuse all of it."
METHOD = (
    "RFC 9110 section 9.1: any token may be a method, so h11 is right. We pass on only those that "
    "are registered."
)
SIZE = "h11 leaves the size of a complete head to its caller. We bound it."
TUNNEL = "h11 leaves CONNECT to its caller. A reverse proxy has nowhere to connect to."
DECLINED = "h11 reads what follows as a request. We close: a client may have sent ahead what is not HTTP."


type Cells = tuple[str, bytes, tuple[Seen, ...], tuple[int, bytes] | None, str, str]


def table(section: str, *rows: Cells) -> tuple[RequestRow, ...]:
    """Return the rows of a section."""
    return tuple(RequestRow(section, *row) for row in rows)


def passes(name: str, sent: bytes, *requests: Seen, connection: str = KEPT, h11: str = "") -> Cells:
    """Return a row of what is forwarded."""
    return name, sent, requests, None, connection, h11


def refuses(
    name: str,
    sent: bytes,
    *before: Seen,
    status: int = 400,
    code: bytes = b"malformed_request",
    h11: str = "",
) -> Cells:
    """Return a row of what is refused, which ends the connection."""
    return name, sent, before, (status, code), CLOSED, h11


def chunks(lines: bytes) -> bytes:
    """Return a request with these chunks."""
    return POST + TE + b"\r\n" + lines


LENGTHS = table(
    "The length of a body (RFC 9112 section 6)",
    passes("no body", GET + b"\r\n", seen(b"GET /x")),
    passes("a length", POST + b"Content-Length: 3\r\n\r\nabc", seen(b"POST /x", b"abc")),
    passes("a length of 0", POST + b"Content-Length: 0\r\n\r\n", seen(b"POST /x")),
    passes("a POST without a length", POST + b"\r\n", seen(b"POST /x")),
    passes(
        "a length with leading zeros", POST + b"Content-Length: 0003\r\n\r\nabc", seen(b"POST /x", b"abc")
    ),
    passes(
        "a length with space around it", POST + b"Content-Length: \t3 \t\r\n\r\nabc", seen(b"POST /x", b"abc")
    ),
    passes("a GET with a body", GET + b"Content-Length: 3\r\n\r\nabc", seen(b"GET /x", b"abc")),
    passes(
        "a DELETE with a body",
        GET.replace(b"GET", b"DELETE") + b"Content-Length: 3\r\n\r\nabc",
        seen(b"DELETE /x", b"abc"),
    ),
    passes("chunks", chunks(ABC), seen(b"POST /x", b"abc", framing=CHUNKED)),
    passes("no chunk but the last", chunks(EMPTY), seen(b"POST /x", framing=CHUNKED)),
    passes("a GET with chunks", GET + TE + b"\r\n" + ABC, seen(b"GET /x", b"abc", framing=CHUNKED)),
    passes(
        "a coding in capitals",
        POST + b"Transfer-Encoding: CHUNKED\r\n\r\n" + ABC,
        seen(b"POST /x", b"abc", framing=CHUNKED),
    ),
    passes(
        "a request in a body",
        POST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        seen(b"POST /x", SMUGGLED),
    ),
    passes(
        "a request in a chunk",
        chunks(b"%x\r\n%b\r\n" % (len(SMUGGLED), SMUGGLED) + EMPTY),
        seen(b"POST /x", SMUGGLED, framing=CHUNKED),
    ),
    refuses("CL.CL: two lengths", POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    refuses(
        "CL.CL: two lengths, the first 0",
        POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + SMUGGLED,
    ),
    refuses(
        "CL.CL: the same length twice",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        h11=ONE_LENGTH,
    ),
    refuses("CL.CL: a list of lengths", POST + b"Content-Length: 3, 3\r\n\r\nabc", h11=ONE_LENGTH),
    refuses("CL.CL: a list of different lengths", POST + b"Content-Length: 3, 4\r\n\r\nabcd"),
    refuses("a length with a plus", POST + b"Content-Length: +3\r\n\r\nabc"),
    refuses("a negative length", POST + b"Content-Length: -3\r\n\r\n"),
    refuses("a hexadecimal length", POST + b"Content-Length: 0x3\r\n\r\nabc"),
    refuses("a length with a fraction", POST + b"Content-Length: 3.0\r\n\r\nabc"),
    refuses("a length with an exponent", POST + b"Content-Length: 3e0\r\n\r\nabc"),
    refuses("a length with an underscore", POST + b"Content-Length: 1_0\r\n\r\n0123456789"),
    refuses("a length with space within", POST + b"Content-Length: 1 0\r\n\r\n0123456789"),
    refuses("a length in Arabic digits", POST + "Content-Length: ٣\r\n\r\nabc".encode()),
    refuses("an empty length", POST + b"Content-Length:\r\n\r\n"),
    refuses(
        "a length beyond 64 bits", POST + b"Content-Length: 18446744073709551619\r\n\r\nabc", h11=BOUNDLESS
    ),
    refuses("a length of 23 digits", POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc"),
    passes(
        "CL.0: a body that looks like a request",
        POST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        seen(b"POST /x", SMUGGLED),
    ),
    refuses("CL.0: a body that was not announced", POST + b"\r\nabc=def&ghi=jkl", seen(b"POST /x")),
)

CODINGS = table(
    "Smuggling: a length against chunks (RFC 9112 sections 6.1 and 11.2)",
    refuses("CL.TE", POST + b"Content-Length: 6\r\n" + TE + b"\r\n0\r\n\r\nG", h11=AMBIGUOUS),
    refuses("TE.CL", POST + TE + b"Content-Length: 4\r\n\r\n2c\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"),
    refuses("CL.TE with a length of 0", POST + b"Content-Length: 0\r\n" + TE + b"\r\n" + ABC, h11=AMBIGUOUS),
    refuses("TE.TE: chunked twice", POST + TE + TE + b"\r\n" + ABC),
    refuses("TE.TE: chunked twice in a list", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + ABC),
    refuses("TE.TE: chunked and identity", POST + TE + b"Transfer-Encoding: identity\r\n\r\n" + ABC),
    refuses("TE.TE: identity and chunked", POST + b"Transfer-Encoding: identity\r\n" + TE + b"\r\n" + ABC),
    refuses("TE.TE: chunked and nonsense", POST + TE + b"Transfer-Encoding: cow\r\n\r\n" + ABC),
    refuses("TE.TE: xchunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n" + ABC),
    refuses("TE.TE: chunked with a quote", POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + ABC),
    refuses("TE.TE: chunked with a parameter", POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + ABC),
    refuses("TE.TE: a space before the colon", POST + b"Transfer-Encoding : chunked\r\n\r\n" + ABC),
    refuses("TE.TE: a tab before the colon", POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + ABC),
    refuses("TE.TE: a vertical tab before the value", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + ABC),
    refuses("TE.TE: a form feed after the value", POST + b"Transfer-Encoding: chunked\x0c\r\n\r\n" + ABC),
    refuses("TE.TE: a folded value", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + ABC, h11=FOLDED),
    refuses(
        "TE.TE: a value after a bare LF",
        POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + ABC,
        h11=LINE_FEED,
    ),
    refuses("TE.TE: a value after a bare CR", POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + ABC),
    refuses("TE.TE: a NUL in the value", POST + b"Transfer-Encoding: chunked\x00\r\n\r\n" + ABC),
    refuses(
        "TE.TE: a leading space in the name",
        POST + b" Transfer-Encoding: chunked\r\n\r\n" + ABC,
        h11=FOLDED_AT_ONCE,
    ),
    refuses(
        "TE.TE: an underscore makes it another header, and what follows no body",
        POST + b"Transfer_Encoding: chunked\r\n\r\n" + ABC,
        seen(b"POST /x", b"", b"transfer_encoding: chunked"),
    ),
    refuses("TE.TE: tabs around the value", POST + b"Transfer-Encoding:\tchunked\t\r\n\r\n" + ABC, h11=TABS),
    refuses("gzip", POST + b"Transfer-Encoding: gzip\r\n\r\nabc"),
    refuses("gzip, then chunked", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + ABC),
    refuses("chunked, then gzip", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + ABC),
    refuses("identity", POST + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc"),
    refuses("an empty coding", POST + b"Transfer-Encoding:\r\n\r\n"),
    refuses("an empty coding and a length", POST + b"Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc"),
    refuses("chunks in HTTP/1.0", b"POST /service/svc/x HTTP/1.0\r\n" + TE + b"\r\n" + ABC, h11=OLD_CHUNKS),
    refuses(
        "a length named in Connection, beside chunks",
        POST + b"Connection: Content-Length\r\nContent-Length: 3\r\n" + TE + b"\r\n" + ABC,
        h11=AMBIGUOUS,
    ),
    passes(
        "a length named in Connection",
        POST + b"Connection: Content-Length\r\nContent-Length: 3\r\n\r\nabc",
        seen(b"POST /x", b"abc"),
    ),
    passes(
        "chunks named in Connection",
        POST + b"Connection: Transfer-Encoding\r\n" + TE + b"\r\n" + ABC,
        seen(b"POST /x", b"abc", framing=CHUNKED),
    ),
)

CHUNK_LINES = table(
    "Chunks (RFC 9112 section 7.1)",
    passes(
        "two chunks", chunks(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), seen(b"POST /x", b"abc", framing=CHUNKED)
    ),
    passes(
        "a size in capitals",
        chunks(b"A\r\n0123456789\r\n0\r\n\r\n"),
        seen(b"POST /x", b"0123456789", framing=CHUNKED),
    ),
    passes(
        "a size with leading zeros",
        chunks(b"003\r\nabc\r\n000\r\n\r\n"),
        seen(b"POST /x", b"abc", framing=CHUNKED),
    ),
    passes("an extension", chunks(b"3;a=b\r\nabc\r\n0\r\n\r\n"), seen(b"POST /x", b"abc", framing=CHUNKED)),
    passes(
        "an extension with a quoted value",
        chunks(b'3;a="b c"\r\nabc\r\n0\r\n\r\n'),
        seen(b"POST /x", b"abc", framing=CHUNKED),
    ),
    passes(
        "an extension of the last chunk",
        chunks(b"3\r\nabc\r\n0;a\r\n\r\n"),
        seen(b"POST /x", b"abc", framing=CHUNKED),
    ),
    refuses("TERM.EXT: a bare LF in an extension", chunks(b"3;a\nabc\r\n0\r\n\r\n")),
    refuses("EXT.TERM: a bare CR in an extension", chunks(b"3;a\rbc\r\nabc\r\n0\r\n\r\n"), h11=EXTENSION),
    refuses("a NUL in an extension", chunks(b"3;\x00\r\nabc\r\n0\r\n\r\n"), h11=EXTENSION),
    refuses("a space before an extension", chunks(b"3 ;a=b\r\nabc\r\n0\r\n\r\n")),
    refuses("a space after a size", chunks(b"3 \r\nabc\r\n0\r\n\r\n"), h11=SIZE_SPACE),
    refuses("a tab after a size", chunks(b"3\t\r\nabc\r\n0\r\n\r\n"), h11=SIZE_SPACE),
    refuses("a space before a size", chunks(b" 3\r\nabc\r\n0\r\n\r\n")),
    refuses("a size with a plus", chunks(b"+3\r\nabc\r\n0\r\n\r\n")),
    refuses("a negative size", chunks(b"-3\r\nabc\r\n0\r\n\r\n")),
    refuses("a size with a prefix", chunks(b"0x3\r\nabc\r\n0\r\n\r\n")),
    refuses("a size with an underscore", chunks(b"0_3\r\nabc\r\n0\r\n\r\n")),
    refuses("no size", chunks(b"\r\nabc\r\n0\r\n\r\n")),
    refuses("an extension without a size", chunks(b";a\r\nabc\r\n0\r\n\r\n")),
    refuses("a size beyond 64 bits", chunks(b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n"), h11=BOUNDLESS),
    refuses(
        "a size that wraps around 64 bits to 3",
        chunks(b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
        h11=BOUNDLESS,
    ),
    refuses("a bare LF after a size", chunks(b"3\nabc\r\n0\r\n\r\n")),
    refuses("a bare CR after a size", chunks(b"3\rabc\r\n0\r\n\r\n")),
    refuses("a bare LF after the data", chunks(b"3\r\nabc\n0\r\n\r\n")),
    refuses("a bare CR after the data", chunks(b"3\r\nabc\r0\r\n\r\n")),
    refuses("no line end after the data", chunks(b"3\r\nabc0\r\n\r\n")),
    refuses("two bytes that are no line end after the data", chunks(b"3\r\nabcXX0\r\n\r\n")),
    refuses("LF only throughout", chunks(b"3\nabc\n0\n\n")),
    refuses("a bare LF after the last chunk", chunks(b"3\r\nabc\r\n0\n\r\n")),
    refuses("a bare LF at the very end", chunks(b"3\r\nabc\r\n0\r\n\n"), h11=LINE_FEED),
    refuses("more data than said", chunks(b"3\r\nabcdef\r\n0\r\n\r\n")),
    passes(
        "a trailer", chunks(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"), seen(b"POST /x", b"abc", framing=CHUNKED)
    ),
    refuses(
        "a trailer that names a length", chunks(b"3\r\nabc\r\n0\r\nContent-Length: 99\r\n\r\n"), h11=TRAILER
    ),
    passes(
        "a trailer that names a host",
        chunks(b"3\r\nabc\r\n0\r\nHost: other\r\n\r\n"),
        seen(b"POST /x", b"abc", framing=CHUNKED),
    ),
    refuses("a trailer that names chunks", chunks(b"3\r\nabc\r\n0\r\n" + TE + b"\r\n"), h11=TRAILER),
    refuses("a trailer without a colon", chunks(b"3\r\nabc\r\n0\r\nX-Sum\r\n\r\n")),
    refuses("a trailer with a space before its colon", chunks(b"3\r\nabc\r\n0\r\nX-Sum : 1\r\n\r\n")),
    refuses("a folded trailer", chunks(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n 2\r\n\r\n"), h11=FOLDED),
    refuses("a request where a trailer should be", chunks(b"3\r\nabc\r\n0\r\n" + SMUGGLED)),
)

LINES = table(
    "Lines of a head (RFC 9112 sections 2.2, 3 and 5)",
    passes("an empty line before the request", b"\r\n" + GET + b"\r\n", seen(b"GET /x"), h11=EMPTY_LINE),
    refuses("bare LF throughout", b"GET /service/svc/x HTTP/1.1\nHost: test\n\n", h11=LINE_FEED),
    refuses(
        "a bare LF after the request line", b"GET /service/svc/x HTTP/1.1\nHost: test\r\n\r\n", h11=LINE_FEED
    ),
    refuses("a bare LF after a header", GET + b"A: b\nC: d\r\n\r\n", h11=LINE_FEED),
    refuses("a bare LF at the end of the head", GET + b"A: b\r\n\n", h11=LINE_FEED),
    refuses("a bare CR in a value", GET + b"A: b\rC: d\r\n\r\n"),
    refuses("a bare CR after the request line", b"GET /service/svc/x HTTP/1.1\rHost: test\r\n\r\n"),
    refuses("CR CR LF", GET + b"A: b\r\r\n\r\n"),
    refuses("a folded header", GET + b"A: b\r\n c\r\n\r\n", h11=FOLDED),
    refuses("a header folded with a tab", GET + b"A: b\r\n\tc\r\n\r\n", h11=FOLDED),
    refuses("a folded Host", b"GET /service/svc/x HTTP/1.1\r\nHost:\r\n test\r\n\r\n", h11=FOLDED),
    refuses("a space before the first header", b"GET /service/svc/x HTTP/1.1\r\n Host: test\r\n\r\n"),
    refuses("a space before a colon", GET + b"A : b\r\n\r\n"),
    refuses("no colon", GET + b"Abc\r\n\r\n"),
    refuses("no name", GET + b": b\r\n\r\n"),
    refuses("a NUL in a value", GET + b"A: b\x00\r\n\r\n"),
    refuses("a NUL in a name", GET + b"A\x00: b\r\n\r\n"),
    refuses("a control byte in a value", GET + b"A: \x01\r\n\r\n", h11=CONTROL),
    refuses("a delete byte in a value", GET + b"A: \x7f\r\n\r\n", h11=CONTROL),
    refuses("a parenthesis in a name", GET + b"A(b): c\r\n\r\n"),
    refuses("bytes beyond ASCII in a name", GET + "Ä: c\r\n\r\n".encode()),
    passes(
        "bytes beyond ASCII in a value", GET + b"A: \xc3\xa4\r\n\r\n", seen(b"GET /x", b"", b"a: \xc3\xa4")
    ),
    passes("an empty value", GET + b"A:\r\n\r\n", seen(b"GET /x", b"", b"a: ")),
    passes("no space after a colon", GET + b"A:b\r\n\r\n", seen(b"GET /x", b"", b"a: b")),
    passes("space around a value", GET + b"A: \t b \t\r\n\r\n", seen(b"GET /x", b"", b"a: b \t")),
    passes("a tab within a value", GET + b"A: b\tc\r\n\r\n", seen(b"GET /x", b"", b"a: b\tc")),
    passes("the same header twice", GET + b"A: 1\r\nA: 2\r\n\r\n", seen(b"GET /x", b"", b"a: 1", b"a: 2")),
    passes(
        "two spaces in the request line",
        b"GET  /service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n",
        seen(b"GET /x"),
        h11=SPACES,
    ),
    refuses("a tab in the request line", b"GET\t/service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n"),
    refuses("a space after the version", b"GET /service/svc/x HTTP/1.1 \r\nHost: test\r\n\r\n"),
    refuses("a space before the method", b" GET /service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n"),
    refuses("a space in the target", b"GET /service/svc/a b HTTP/1.1\r\nHost: test\r\n\r\n"),
    refuses("a NUL in the target", b"GET /service/svc/\x00 HTTP/1.1\r\nHost: test\r\n\r\n"),
    refuses("bytes beyond ASCII in the target", "GET /service/svc/é HTTP/1.1\r\nHost: test\r\n\r\n".encode()),
    refuses("HTTP/0.9", b"GET /service/svc/x\r\n\r\n"),
    refuses("HTTP/1.2", b"GET /service/svc/x HTTP/1.2\r\nHost: test\r\n\r\n", h11=MINOR),
    refuses("HTTP/2.0", b"GET /service/svc/x HTTP/2.0\r\nHost: test\r\n\r\n", h11=MAJOR),
    refuses("HTTP/01.1", b"GET /service/svc/x HTTP/01.1\r\nHost: test\r\n\r\n"),
    refuses("HTTP/1.10", b"GET /service/svc/x HTTP/1.10\r\nHost: test\r\n\r\n"),
    refuses("a version in lower case", b"GET /service/svc/x http/1.1\r\nHost: test\r\n\r\n"),
    refuses("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", h11=PREFACE),
    refuses("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    refuses("a method in lower case", b"get /service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n", h11=METHOD),
    refuses("a method that nobody knows", b"FETCH /service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n", h11=METHOD),
    refuses(
        "a head that is too large",
        GET + b"A: " + b"b" * 70_000 + b"\r\n\r\n",
        status=431,
        code=b"head_too_large",
        h11=SIZE,
    ),
    refuses(
        "too many headers", GET + b"A: b\r\n" * 200 + b"\r\n", status=431, code=b"head_too_large", h11=SIZE
    ),
)

HOSTS = table(
    "Hosts and targets (RFC 9110 section 7.2, RFC 9112 section 3.2)",
    refuses("no Host", b"GET /service/svc/x HTTP/1.1\r\n\r\n"),
    refuses("two Hosts", GET + b"Host: other\r\n\r\n"),
    refuses("the same Host twice", GET + b"Host: test\r\n\r\n"),
    refuses("a second Host in other case", GET + b"hOST: other\r\n\r\n"),
    passes("an empty Host", b"GET /service/svc/x HTTP/1.1\r\nHost:\r\n\r\n", seen(b"GET /x")),
    passes(
        "a target in absolute form",
        b"GET http://test/service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n",
        seen(b"GET /x"),
    ),
    passes(
        "a target in absolute form with another Host",
        b"GET http://test/service/svc/x HTTP/1.1\r\nHost: other\r\n\r\n",
        seen(b"GET /x"),
    ),
    passes(
        "a query", b"GET /service/svc/x?a=b%20c&d HTTP/1.1\r\nHost: test\r\n\r\n", seen(b"GET /x?a=b%20c&d")
    ),
    passes(
        "encoded bytes in a target",
        b"GET /service/svc/%41%zz HTTP/1.1\r\nHost: test\r\n\r\n",
        seen(b"GET /%41%zz"),
    ),
    passes("a Host named in Connection", GET + b"Connection: Host\r\n\r\n", seen(b"GET /x")),
    refuses("CONNECT", b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", h11=TUNNEL),
    refuses("CONNECT to a path", b"CONNECT /service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n", h11=TUNNEL),
)

CONNECTIONS = table(
    "Connections (RFC 9110 sections 7.6, 7.8 and 10.1, RFC 9112 section 9)",
    passes(
        "two requests, one after the other", GET + b"\r\n" + SMUGGLED, seen(b"GET /x"), seen(b"GET /smuggled")
    ),
    passes(
        "a request behind a body",
        POST + b"Content-Length: 3\r\n\r\nabc" + SMUGGLED,
        seen(b"POST /x", b"abc"),
        seen(b"GET /smuggled"),
    ),
    passes(
        "a request behind chunks",
        chunks(ABC + SMUGGLED),
        seen(b"POST /x", b"abc", framing=CHUNKED),
        seen(b"GET /smuggled"),
    ),
    passes("Connection: close", GET + b"Connection: close\r\n\r\n", seen(b"GET /x"), connection=CLOSED),
    passes(
        "a request behind Connection: close",
        GET + b"Connection: close\r\n\r\n" + SMUGGLED,
        seen(b"GET /x"),
        connection=CLOSED,
    ),
    passes("close in a list", GET + b"Connection: foo, Close\r\n\r\n", seen(b"GET /x"), connection=CLOSED),
    passes(
        "keep-alive in HTTP/1.1",
        GET + b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
        seen(b"GET /x"),
    ),
    passes(
        "headers named in Connection",
        GET + b"Connection: X-A\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
        seen(b"GET /x", b"", b"x-b: 2"),
    ),
    passes(
        "headers of one connection",
        GET + b"TE: trailers\r\nProxy-Connection: keep-alive\r\nTrailer: X\r\n\r\n",
        seen(b"GET /x"),
    ),
    passes("HTTP/1.0", b"GET /service/svc/x HTTP/1.0\r\n\r\n", seen(b"GET /x"), connection=CLOSED),
    passes(
        "keep-alive in HTTP/1.0",
        b"GET /service/svc/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        seen(b"GET /x"),
        connection=CLOSED,
    ),
    passes(
        "a length in HTTP/1.0",
        b"POST /service/svc/x HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
        seen(b"POST /x", b"abc"),
        connection=CLOSED,
    ),
    passes("HEAD", GET.replace(b"GET", b"HEAD") + b"\r\n", seen(b"HEAD /x")),
    passes("OPTIONS", GET.replace(b"GET", b"OPTIONS") + b"\r\n", seen(b"OPTIONS /x")),
    passes(
        "Expect: 100-continue with its body",
        POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        seen(b"POST /x", b"abc"),
    ),
    passes("Expect: 100-continue without a body", GET + b"Expect: 100-continue\r\n\r\n", seen(b"GET /x")),
    passes(
        "an unknown expectation",
        POST + b"Expect: cake\r\nContent-Length: 3\r\n\r\nabc",
        seen(b"POST /x", b"abc"),
    ),
    passes("an upgrade without Connection", GET + b"Upgrade: websocket\r\n\r\n", seen(b"GET /x")),
    passes(
        "an upgrade that the backend declines",
        GET + b"Connection: upgrade\r\nUpgrade: foo\r\n\r\n",
        seen(b"GET /x", b"", b"connection: upgrade", b"upgrade: foo"),
        connection=CLOSED,
        h11=DECLINED,
    ),
    passes("an upgrade to h2c", GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", seen(b"GET /x")),
    passes(
        "an upgrade with a body",
        POST + b"Connection: upgrade\r\nUpgrade: foo\r\nContent-Length: 3\r\n\r\nabc",
        seen(b"POST /x", b"abc"),
    ),
    passes(
        "an upgrade with a request as its body",
        POST
        + b"Connection: upgrade\r\nUpgrade: foo\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
        + SMUGGLED,
        seen(b"POST /x", SMUGGLED),
    ),
    passes(
        "an upgrade with chunks",
        POST + b"Connection: upgrade\r\nUpgrade: foo\r\n" + TE + b"\r\n" + ABC,
        seen(b"POST /x", b"abc", framing=CHUNKED),
    ),
    passes(
        "an upgrade in HTTP/1.0",
        b"GET /service/svc/x HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
        seen(b"GET /x"),
        connection=CLOSED,
    ),
    refuses("a malformed request behind a good one", GET + b"\r\nGARBAGE\r\n\r\n", seen(b"GET /x")),
    refuses(
        "a malformed request behind a body",
        POST + b"Content-Length: 3\r\n\r\nabc\x00",
        seen(b"POST /x", b"abc"),
    ),
    passes(
        "TRACE, which the guard refuses before it gets here",
        b"TRACE /service/svc/x HTTP/1.1\r\nHost: test\r\n\r\n",
        seen(b"TRACE /x"),
    ),
)

REQUESTS = (*LENGTHS, *CODINGS, *CHUNK_LINES, *LINES, *HOSTS, *CONNECTIONS)
