import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop
from tests.rigs.wire_rig import WireRig, wire_rig


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run everything on the loop of production and on the one that is everywhere."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def quick_collections() -> Iterator[None]:
    """Every rig collects garbage at its end: leave the modules out of that."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
async def rig() -> AsyncIterator[WireRig]:
    async with wire_rig() as rig:
        yield rig
