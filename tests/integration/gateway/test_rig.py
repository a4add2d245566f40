"""The surroundings that these tests give the gateway end without a trace, at whatever moment."""

import asyncio
import gc
import socket
from contextlib import ExitStack

import pytest
from tests.rigs.raw_http import build_request
from tests.rigs.wire_rig import wire_rig


@pytest.mark.parametrize("turns", range(6))
async def test_connections_that_are_being_accepted_are_closed(turns: int) -> None:
    with ExitStack() as clients:
        async with wire_rig() as rig:
            for _ in range(20):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", rig.port)))
                client.send(build_request())
            for _ in range(turns):
                await asyncio.sleep(0)

    gc.collect()  # a socket that was left open is told by a warning, which fails this test
