"""docs/wire.md, made from the tables."""

from collections.abc import Iterable, Iterator

from tests.wire.requests import GET, POST, REQUESTS
from tests.wire.responses import OK, RESPONSES
from tests.wire.table import INVALID, WHOLE, RequestRow, ResponseRow

LONGEST = 90
"""Characters shown of what is sent."""

INTRODUCTION = f"""# The wire

What the proxy makes of HTTP/1.1, row by row: RFC 9110, RFC 9112, and the known ways to hide a request in
another one. Each of the {len(REQUESTS) + len(RESPONSES)} rows is a test (`tests/wire`) with a real listener
and a backend that sees and says every byte; this page is generated from them. Where it is doubtful what a
message means, the proxy refuses it: the next recipient may read it otherwise.

Each row is also shown to [h11](https://h11.readthedocs.io). Where h11 is of another opinion, the last column
says why, and who is right.
"""

FROM_CLIENTS = """## From clients

*Forwarded* says how the body is framed on the way to the backend; *kept* and *closed* say what becomes of the
client's connection. A refusal always closes it, so that nothing that follows is taken for a request.
"""

FROM_BACKENDS = """## From backends

*Whole* is passed on to its end. *Broken off* is passed on until the error, and then the client's connection
ends without the end of the message. *502* is told where nothing has been passed on yet. *Kept* and *closed*
say what becomes of the connection to the backend.
"""


def render() -> str:
    """Return the page."""
    requests = sections((row.section, request_line(row)) for row in REQUESTS)
    responses = sections((row.section, response_line(row)) for row in RESPONSES)
    return "\n".join((INTRODUCTION, FROM_CLIENTS, *requests, FROM_BACKENDS, *responses)).rstrip() + "\n"


def sections(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines of tables, one per section."""
    current = ""
    for section, line in rows:
        if section != current:
            yield from (*(("",) if current else ()), f"### {section}", "")
            yield from ("| what is sent | | what is done | h11 |", "|---|---|---|---|")
        current = section
        yield line
    yield ""


def request_line(row: RequestRow) -> str:
    """Return the line of a request."""
    forwarded = [f"forwarded ({request.framing})" for request in row.seen]
    refused = [str(row.refused[0])] if row.refused else []
    sent = row.sent.removeprefix(GET).removeprefix(POST)
    return cells(row.name, sent, f"{', then '.join(forwarded + refused)}; {row.connection}", row.judgement)


def response_line(row: ResponseRow) -> str:
    """Return the line of a response."""
    done = {INVALID: "502", WHOLE: f"{row.status}, whole"}.get(row.result, "broken off")
    asked = f" ({row.method.decode()})" if row.method != b"GET" else ""
    sent = row.sent.removeprefix(OK)
    return cells(row.name + asked, sent, f"{done}; {row.connection}", row.judgement)


def cells(name: str, sent: bytes, done: str, judgement: str) -> str:
    """Return a line of a table."""
    shown = repr(sent)[2:-1].replace("|", "\\|")
    shown = shown if len(shown) <= LONGEST else shown[:LONGEST] + "..."
    return f"| {name} | {f'`{shown}`' if shown else ''} | {done} | {judgement or 'agrees'} |"
