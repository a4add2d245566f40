"""What rows of the tables say, and how to write them."""

from dataclasses import dataclass

LENGTH, CHUNKED, NO_BODY = "length", "chunked", "no body"
KEPT, CLOSED = "kept", "closed"
WHOLE, CUT, INVALID = "whole", "cut", "invalid"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as a backend sees it.

    Attributes:
        first_line: Of its head.
        body: Without chunk framing.
        framing: LENGTH, CHUNKED or NO_BODY.
        headers: All that are end-to-end, in lower case, but for Host and X-Request-ID.
    """

    first_line: bytes
    body: bytes
    framing: str
    headers: tuple[tuple[bytes, bytes], ...]

    @property
    def method(self) -> bytes:
        """Its method."""
        return self.first_line.partition(b" ")[0]


def seen(start: bytes, body: bytes = b"", *headers: bytes, framing: str = "") -> Seen:
    """Return what a backend sees of a request that begins with a method and a target."""
    may_have_body = start.startswith((b"POST", b"PUT", b"PATCH"))
    framing = framing or (LENGTH if body or may_have_body else NO_BODY)
    pairs = tuple((name, value) for name, _, value in (header.partition(b": ") for header in headers))
    return Seen(start + b" HTTP/1.1", body, framing, pairs)


@dataclass(frozen=True, slots=True)
class RequestRow:
    """What a client sends, and what becomes of it.

    Attributes:
        section: Of the page.
        name: In words.
        sent: By the client, in one go.
        seen: Requests that reach the backend, in order.
        refused: Status and code of the refusal that follows; none when everything is forwarded.
        connection: Whether it serves another request afterwards.
        judgement: Why h11 is of another opinion, and who is right; empty where it agrees.
    """

    section: str
    name: str
    sent: bytes
    seen: tuple[Seen, ...]
    refused: tuple[int, bytes] | None
    connection: str
    judgement: str


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """What a backend sends, and what the client gets.

    Attributes:
        section: Of the page.
        name: In words.
        method: Of the request.
        sent: By the backend, in one go.
        ends: Whether the backend then ends the connection.
        result: WHOLE, CUT, or INVALID for a 502.
        status: That the client sees.
        body: That the client sees, or as much as came of it.
        connection: Whether that to the backend serves another request.
        judgement: Why h11 is of another opinion, and who is right; empty where it agrees.
    """

    section: str
    name: str
    method: bytes
    sent: bytes
    ends: bool
    result: str
    status: int
    body: bytes
    connection: str
    judgement: str
