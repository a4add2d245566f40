import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from tests.rigs.wire_rig import WireRig, wire_rig

from ai_proxy.core.settings import Limits

SOON = 0.1
IMPATIENT = Limits(
    max_head=2048,
    max_json_body=4096,
    head_timeout=SOON,
    body_timeout=SOON,
    keep_alive_timeout=SOON,
    shutdown_timeout=0.5,
)


@asynccontextmanager
async def fuzz_rig() -> AsyncIterator[WireRig]:
    async with wire_rig(IMPATIENT, response_timeout=SOON, stream_idle_timeout=SOON) as rig:
        yield rig


@pytest.fixture
def fuzzed() -> Iterator[tuple[asyncio.Runner, WireRig]]:
    """A rig, and what runs coroutines on its loop: hypothesis calls ordinary functions."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        context = fuzz_rig()
        rig = runner.run(context.__aenter__())
        yield runner, rig
        runner.run(context.__aexit__(None, None, None))
