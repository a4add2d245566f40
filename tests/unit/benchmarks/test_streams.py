from benchmarks.proxies import CONTENDERS, DIRECT, Contender
from benchmarks.streams import StreamLoad, put, section
from benchmarks.works import Target
from tests.unit.benchmarks.test_wire import answering, engine

DONE_BY_NOBODY = Contender(DIRECT, CONTENDERS[0].prepare, prefix="")


def directly(port: int) -> Target:
    return Target(DONE_BY_NOBODY, port, None, port)


async def test_streams_at_a_pace_overlap_and_are_all_whole() -> None:
    async with engine() as port:
        tally = await put(StreamLoad(6, 0.2, 100.0, interval=0.02), directly(port))

    assert (tally.whole, tally.lost, tally.busy) == (6, 0, 0)
    assert 2 <= tally.most <= 6
    assert all(0 < first < 0.2 for first in tally.firsts)


async def test_streams_at_once_are_never_more_than_that() -> None:
    async with engine() as port:
        tally = await put(StreamLoad(12, 0.02, 200.0, at_once=4), directly(port))

    assert (tally.whole, tally.most) == (12, 4)


async def test_streams_that_are_not_as_they_were_sent_are_lost_and_told() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong") as port:
        tally = await put(StreamLoad(3, 0.02, 200.0, interval=0.01), directly(port))

    assert (tally.whole, tally.lost) == (0, 3)
    assert "3 x 5 bytes instead of" in section([tally])


async def test_the_report_has_a_column_for_each_load() -> None:
    async with engine() as port:
        loads = (StreamLoad(2, 0.02, 200.0, interval=0.01), StreamLoad(2, 0.02, 200.0, at_once=2))
        told = section([await put(load, directly(port)) for load in loads])

    head, rule, *rows = told.splitlines()
    assert {row.count("|") for row in (head, rule, *rows)} == {4}
    assert "| whole and in order, by checksum |" in " ".join(" ".join(rows).split())
