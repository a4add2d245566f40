import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.engine import Connection, Lag, Pacer
from benchmarks.load import Client, Requests, Streams, clients, exchange
from benchmarks.messages import (
    ANSWER,
    DONE,
    EVENT_BYTES,
    Request,
    chat,
    event,
    receipt,
    stream,
    upload,
    words,
)


@asynccontextmanager
async def engine() -> AsyncIterator[int]:
    pacer = Pacer()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(pacer), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def answering(response: bytes) -> AsyncIterator[int]:
    """A server that answers every first read with the same bytes and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(response)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def fault_of(request: Request, response: bytes) -> str:
    async with answering(response) as port, clients(port, 1) as (client,):
        return await exchange(client, request)


def whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def test_events_have_one_size_so_that_chunks_can_be_counted_by_bytes() -> None:
    assert {len(event(number)) for number in (0, 7, 999_999)} == {EVENT_BYTES}


async def test_every_kind_of_request_is_answered_as_expected_over_one_connection() -> None:
    payload = bytes(300_000)
    async with engine() as port, clients(port, 1) as (client,):
        for request in (chat(""), upload("", payload), stream("", 5, 500.0), chat("")):
            assert await exchange(client, request) == ""


async def test_engine_takes_a_request_that_comes_in_pieces() -> None:
    async with engine() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in (chat("").wire[:40], chat("").wire[40:-9], chat("").wire[-9:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        answer = await reader.readuntil(ANSWER)
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_a_closed_loop_counts_answers_and_no_faults() -> None:
    async with engine() as port, clients(port, 8) as connected:
        load = Requests(connected, chat(""))
        while load.units() < 100:  # noqa: ASYNC110  # there is no event per answer
            await asyncio.sleep(0)
        await load.finish()
    assert len(load.latencies) == load.units() >= 100
    assert not load.faults


async def test_streams_arrive_whole_and_are_counted_by_chunk() -> None:
    async with engine() as port, clients(port, 20) as connected:
        load = Streams(connected, stream("", 10, 500.0))
        await load.finish()
        assert (load.whole, load.units(), load.faults) == (20, 200, {})


async def test_an_error_status_is_a_fault() -> None:
    assert await fault_of(chat(""), whole(ANSWER, b"502 Bad Gateway")) == "status 502"


async def test_a_changed_byte_is_a_fault() -> None:
    assert await fault_of(chat(""), whole(ANSWER.replace(b"fox", b"cat"))) == "the checksum differs"


async def test_a_missing_chunk_is_a_fault() -> None:
    body = event(0) + event(2) + DONE
    fault = await fault_of(stream("", 3, 1.0), whole(body))
    assert fault == f"{len(body)} bytes instead of {3 * EVENT_BYTES + len(DONE)}"


async def test_chunks_out_of_order_are_a_fault() -> None:
    assert await fault_of(stream("", 2, 1.0), whole(event(1) + event(0) + DONE)) == "the checksum differs"


async def test_a_message_that_breaks_off_is_a_fault() -> None:
    assert (await fault_of(chat(""), whole(ANSWER)[:-5])).startswith("broke off")


async def test_what_is_not_http_is_a_fault() -> None:
    assert (await fault_of(chat(""), b"hello\r\n\r\n")).startswith("not HTTP")


async def test_reworded_json_with_the_same_text_is_no_fault_where_that_is_allowed() -> None:
    reworded = ANSWER.replace(b'"content":', b'"content": ')
    assert await fault_of(chat("", verbatim=False), whole(reworded)) == ""
    assert (
        await fault_of(chat("", verbatim=False), whole(reworded.replace(b"fox", b"cat")))
        == "the text differs"
    )


async def test_a_client_that_closes_on_purpose_reports_no_fault() -> None:
    faults: list[str] = []
    async with engine() as port, clients(port, 1) as (client,):
        client.send(stream("", 1000, 1.0), lambda _, fault: faults.append(fault))
        client.close()
        assert isinstance(client, Client)
    await asyncio.sleep(0)
    assert faults == []


def test_words_are_joined_over_the_events_of_a_stream() -> None:
    assert words(event(1) + event(2) + DONE) == b"000001 000002 "


def test_receipt_is_json_of_length_and_checksum() -> None:
    assert receipt(10, 0xABC) == b'{"bytes":10,"crc32":"00000abc"}'


def test_lag_is_weighted_by_chunks_and_begins_anew_after_each_report() -> None:
    lag = Lag()
    lag.add(3, 0.001)
    lag.add(1, 0.005)
    lag.add(0, 9.0)
    assert lag.report() == {"mean_ms": 2.0, "worst_ms": 5.0}
    assert lag.report() == {"mean_ms": 0.0, "worst_ms": 0.0}
