"""What h11 makes of the same bytes."""

from dataclasses import dataclass

import h11
from tests.wire.table import CLOSED, KEPT

REFUSED, WAITS = "refused", "waits for more"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a parser makes of what came.

    Attributes:
        messages: Method and body of each request.
        end: KEPT, CLOSED, REFUSED or WAITS.
    """

    messages: tuple[tuple[bytes, bytes], ...]
    end: str


def of_requests(sent: bytes, probe: bytes) -> Opinion:
    """Return what h11 makes of requests as a server; each is answered, and the probe comes last."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
    connection.receive_data(sent + probe)
    messages: list[tuple[bytes, bytes]] = []
    try:
        while True:
            event = connection.next_event()
            if not isinstance(event, h11.Request):
                return Opinion(tuple(messages), WAITS if event is h11.NEED_DATA else CLOSED)
            request, body = event, bytearray()
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if not isinstance(event, h11.Data):
                    return Opinion(tuple(messages), WAITS)
                body += event.data
            if request.target == b"/service/svc/probe":
                return Opinion(tuple(messages), KEPT)
            messages.append((request.method, bytes(body)))
            status = 400 if request.method == b"CONNECT" else 200
            connection.send(h11.Response(status_code=status, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return Opinion(tuple(messages), CLOSED)
            connection.start_next_cycle()
    except h11.RemoteProtocolError:
        return Opinion(tuple(messages), REFUSED)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client makes of a response.

    Attributes:
        whole: Status and body of a response that came whole; None where none did.
        connection: KEPT or CLOSED.
    """

    whole: tuple[int, bytes] | None
    connection: str


def of_response(method: bytes, sent: bytes, *, ends: bool) -> Answer:
    """Return what h11 makes of a response as a client."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
    connection.send(h11.Request(method=method, target="/x", headers=[("Host", "test")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, bytearray()
    try:
        connection.receive_data(sent)
        if ends:
            connection.receive_data(b"")
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif not isinstance(event, h11.InformationalResponse):
                return Answer(None, CLOSED)
    except h11.RemoteProtocolError:
        return Answer(None, CLOSED)
    kept = connection.their_state is h11.DONE and not ends and not connection.trailing_data[0]
    return Answer((status, bytes(body)), KEPT if kept else CLOSED)
