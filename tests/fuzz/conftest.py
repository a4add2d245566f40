import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from hypothesis import settings
from tests.rigs.wire_rig import WireRig, wire_rig

from ai_proxy.core.settings import Limits

LONG, SOON = 60.0, 0.1


def examples(usual: int) -> int:
    """Return how many examples to draw: more where the profile of hypothesis says so."""
    assert settings.default is not None
    return max(1, usual * settings.default.max_examples // 100)


def limits(seconds: float) -> Limits:
    """Return limits under which nobody is waited for longer."""
    return Limits(
        max_head=2048,
        max_json_body=4096,
        head_timeout=seconds,
        body_timeout=seconds,
        keep_alive_timeout=seconds,
        shutdown_timeout=0.5,
    )


@asynccontextmanager
async def fuzz_rig(seconds: float) -> AsyncIterator[WireRig]:
    async with wire_rig(limits(seconds), response_timeout=seconds, stream_idle_timeout=seconds) as rig:
        yield rig


impatiently = pytest.mark.parametrize("patience", [SOON])
"""For what may end neither as a message nor with the connection: the proxy gives up at once."""


@pytest.fixture
def patience() -> float:
    """Seconds that the proxy waits for anybody; more than a busy machine takes."""
    return LONG


@pytest.fixture
def fuzzed(patience: float) -> Iterator[tuple[asyncio.Runner, WireRig]]:
    """A rig, and what runs coroutines on its loop: hypothesis calls ordinary functions."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        context = fuzz_rig(patience)
        rig = runner.run(context.__aenter__())
        yield runner, rig
        runner.run(context.__aexit__(None, None, None))
