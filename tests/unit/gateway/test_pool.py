import asyncio

from ai_proxy.core.service import Upstream
from ai_proxy.gateway.http.pool import Pools, authority


def test_the_same_upstream_has_the_same_pool_as_long_as_it_is_used() -> None:
    pools = Pools()
    pool = pools.of(Upstream("h", 1))

    assert pools.of(Upstream("h", 1)) is pool
    assert pools.of(Upstream("h", 2)) is not pool


def test_the_default_port_is_not_named() -> None:
    assert authority(Upstream("h", 80)) == b"h"
    assert authority(Upstream("h", 443)) == b"h:443"
    assert authority(Upstream("h", 80, tls=True)) == b"h:80"
    assert authority(Upstream("unix", 0, unix_path="/x.sock")) == b"localhost"


async def test_a_connection_that_nobody_uses_is_closed_after_a_while() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        pool = Pools().of(Upstream("127.0.0.1", server.sockets[0].getsockname()[1]))
        old, new = await pool.connect(1.0), await pool.connect(1.0)
        pool.put(old)
        pool.sweep(keep=2)
        pool.put(new)

        pool.sweep(keep=2)

        assert old.transport.is_closing()
        assert pool.take() is new
        assert pool.take() is None
        new.transport.abort()
        await asyncio.sleep(0)
