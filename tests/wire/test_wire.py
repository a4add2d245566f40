"""Every row of the tables, with a real listener between raw bytes on both sides; and what h11 makes of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.rigs.raw_backend import BackendConnection, Script, ok
from tests.rigs.raw_http import Message, RawClient, TruncatedError, build_request, read_response
from tests.rigs.wire_rig import WireRig, wire_rig
from tests.wire import second_opinion
from tests.wire.requests import REQUESTS
from tests.wire.responses import RESPONSES
from tests.wire.second_opinion import REFUSED, Answer, Opinion
from tests.wire.table import (
    CHUNKED,
    CLOSED,
    CUT,
    INVALID,
    KEPT,
    LENGTH,
    NO_BODY,
    WHOLE,
    RequestRow,
    ResponseRow,
    Seen,
)

PROBE = build_request(b"/service/svc/probe", b"Connection: close")
"""Sent behind every request: it is answered where the connection is kept, and ends it."""
UNLIKE = frozenset({b"host", b"x-request-id", b"content-length", b"transfer-encoding"})
BROKEN = (b"upstream_closed", b"upstream_invalid_response")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[WireRig]:
    async with wire_rig() as rig:
        yield rig


@pytest.fixture
def rig(shared: WireRig) -> WireRig:
    """A rig that has no connection to its backend yet."""
    shared.gateway.shared.pools.of(shared.admission.upstreams["svc"]).sweep(0)
    shared.backend.connections.clear()
    return shared


async def answer(connection: BackendConnection) -> None:
    """Answer everything, a HEAD without a body."""
    while (request := await connection.request()) is not None:
        response = ok(b"seen")
        await connection.send(response.removesuffix(b"seen") if request.method == b"HEAD" else response)


def as_seen(request: Message) -> Seen:
    chunked, length = request.header(b"transfer-encoding"), request.header(b"content-length")
    framing = CHUNKED if chunked else NO_BODY if length is None else LENGTH
    headers = tuple(header for header in request.headers if header[0] not in UNLIKE)
    return Seen(request.first_line, request.body, framing, headers)


async def responses(received: bytes, methods: list[bytes]) -> list[tuple[int, bytes | None]]:
    """Return status and error of every response; there is nothing between and behind them."""
    reader = asyncio.StreamReader()
    reader.feed_data(received)
    reader.feed_eof()
    found: list[tuple[int, bytes | None]] = []
    while not reader.at_eof():
        response = await read_response(reader, methods[len(found)])
        found.append((response.status, response.error_code))
    return found


@pytest.mark.threat("somebody on the network", "request smuggling")
@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_request_is_forwarded_or_refused_as_the_table_says(rig: WireRig, row: RequestRow) -> None:
    rig.backend.script = answer
    client = await rig.client()

    await client.send(row.sent + PROBE)

    received = await client.until_closed()
    requests = [as_seen(request) for request in rig.backend.requests]
    probe = as_seen_probe(requests)
    assert tuple(requests[: -1 if probe else None]) == row.seen
    assert probe is (row.connection == KEPT)
    methods = [*(request.method for request in row.seen), b"GET", b"GET"]
    refusal = [row.refused] if row.refused else []
    told = [(200, None)] * len(row.seen) + refusal + [(200, None)] * probe
    assert await responses(received, methods) == told


def as_seen_probe(requests: list[Seen]) -> bool:
    return bool(requests) and requests[-1].first_line == b"GET /probe HTTP/1.1"


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
def test_h11_agrees_about_a_request_or_the_disagreement_is_judged(row: RequestRow) -> None:
    ours = Opinion(
        tuple((request.method, request.body) for request in row.seen),
        REFUSED if row.refused else row.connection,
    )

    theirs = second_opinion.of_requests(row.sent, PROBE)

    assert (ours == theirs) is (row.judgement == ""), theirs


def play(row: ResponseRow) -> Script:
    async def run(connection: BackendConnection) -> None:
        await connection.request()
        await connection.send(row.sent)
        if not row.ends:
            await answer(connection)

    return run


async def ask(client: RawClient, method: bytes) -> tuple[str, int, bytes]:
    """Return what the client gets."""
    try:
        response = await client.ask(build_request(method=method))
    except TruncatedError as error:
        return CUT, error.message.status, error.message.body
    if response.error_code is None:
        return WHOLE, response.status, response.body
    assert response.error_code in BROKEN
    return INVALID, response.status, b""


@pytest.mark.threat("a backend", "response smuggling")
@pytest.mark.parametrize("row", RESPONSES, ids=lambda row: row.name)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_response_is_passed_on_or_refused_as_the_table_says(rig: WireRig, row: ResponseRow) -> None:
    rig.backend.script = play(row)

    result = await ask(await rig.client(), row.method)

    rig.backend.script = answer
    after = await rig.ask(build_request())
    connections = len(rig.backend.connections)
    assert result == (row.result, row.status, row.body)
    assert after.body == b"seen", "another client got what was not meant for it"
    assert (KEPT if connections == 1 else CLOSED) == row.connection


@pytest.mark.parametrize("row", RESPONSES, ids=lambda row: row.name)
def test_h11_agrees_about_a_response_or_the_disagreement_is_judged(row: ResponseRow) -> None:
    ours = Answer((row.status, row.body) if row.result == WHOLE else None, row.connection)

    theirs = second_opinion.of_response(row.method, row.sent, ends=row.ends)

    assert (ours == theirs) is (row.judgement == ""), theirs


def test_no_row_is_there_twice() -> None:
    sent = [("request", row.section, row.name) for row in REQUESTS]
    answered = [("response", row.section, row.name) for row in RESPONSES]
    names = Counter(sent + answered)

    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) >= 150
