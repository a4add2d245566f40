"""A body that is taken in slices, between a transport and an exchange that a test plays."""

import asyncio
from typing import Any, cast

from ai_proxy.core.service import Upstream
from ai_proxy.gateway.http.pool import Pool
from ai_proxy.gateway.http.upstream import SLICE, UNTIL_CLOSE, UpstreamConnection


class OpenTransport:
    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return False


class TakingExchange:
    """Takes content, and keeps the size of each piece."""

    content_only = True
    request_done = True

    def __init__(self) -> None:
        self.taken: list[int] = []

    def response_body(self, data: bytes) -> None:
        self.taken.append(len(data))


async def test_a_client_that_pauses_and_resumes_often_gets_one_slice_a_turn() -> None:
    connection, exchange = UpstreamConnection(Pool(Upstream("127.0.0.1", 1))), TakingExchange()
    connection.connection_made(cast("asyncio.Transport", OpenTransport()))
    connection.exchange = cast("Any", exchange)
    connection.framing = UNTIL_CLOSE
    connection.data_received(b"x" * (10 * SLICE))

    for _ in range(3):
        connection.pause()
        connection.resume()
    before = len(exchange.taken)
    await asyncio.sleep(0)
    after = len(exchange.taken)
    for _ in range(10):
        await asyncio.sleep(0)

    assert after - before == 1
    assert exchange.taken == [SLICE] * 10
