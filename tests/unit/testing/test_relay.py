import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.platform.tasks import spawn
from ai_proxy.testing.fakes import settle
from ai_proxy.testing.relay import Toxic, cut, dribble, half_open, latency, reset, running_relay

SAID = b"head\r\n\r\nbody and more"
CUTS = st.lists(st.integers(0, len(SAID)))


async def passed(toxics: tuple[Toxic, ...], cuts: list[int]) -> bytes:
    """Return what goes on of what is said, in pieces, until it ends or is ended."""

    async def said() -> AsyncIterator[bytes]:
        for start, end in pairwise(sorted({0, *cuts, len(SAID)})):
            yield SAID[start:end]

    pieces: AsyncIterator[bytes] = said()
    for toxic in toxics:
        pieces = toxic(pieces)
    heard = bytearray()

    async def hear() -> None:
        async for piece in pieces:
            heard.extend(piece)

    hearing = spawn(hear(), "hear")
    await settle()
    hearing.cancel()
    await asyncio.wait([hearing])
    if not hearing.cancelled():
        hearing.exception()  # it ends both connections
    return bytes(heard)


@pytest.mark.parametrize("ends", [cut, reset, half_open])
@given(after=st.integers(0, len(SAID)), cuts=CUTS)
def test_so_many_bytes_pass_however_they_come(
    ends: Callable[[int | bytes], Toxic], after: int, cuts: list[int]
) -> None:
    assert asyncio.run(passed((ends(after),), cuts)) == SAID[:after]


@pytest.mark.parametrize("ends", [cut, reset, half_open])
@given(cuts=CUTS)
def test_bytes_pass_up_to_a_mark_however_they_come(
    ends: Callable[[int | bytes], Toxic], cuts: list[int]
) -> None:
    assert asyncio.run(passed((ends(b"\r\n\r\n"),), cuts)) == b"head\r\n\r\n"


@given(cuts=CUTS, size=st.integers(1, 9))
def test_what_is_only_slow_loses_nothing(cuts: list[int], size: int) -> None:
    async def whole() -> bytes:
        return await passed((latency(0.0), dribble(size)), cuts)

    assert asyncio.run(whole()) == SAID


async def test_both_directions_and_their_ends_pass() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, running_relay(server.sockets[0].getsockname()[1]) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"hello")
        writer.write_eof()

        heard = await reader.read()
        writer.close()

    assert heard == b"HELLO"
    assert relay.accepted == 1
