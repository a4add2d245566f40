"""A proxy whose store cannot be used at its start uses it as soon as it can."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from loguru import logger

from ai_proxy.config.schema import Config
from ai_proxy.core.errors import StoreError, StoreFullError, StoreMigrationError
from ai_proxy.instances.state import ProxyState, open_state
from ai_proxy.instances.state_opener import StateOpener
from ai_proxy.platform.clock import SystemClock
from ai_proxy.platform.tasks import Background
from ai_proxy.testing.fakes import FakeClock


class Opening:
    """Fails as often as there are errors, then opens the state."""

    def __init__(self, data: Path, *errors: StoreError) -> None:
        self.left = list(errors)
        self._data = data

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[ProxyState]:
        if self.left:
            raise self.left.pop(0)
        async with open_state(Config(), SystemClock(), {"AI_PROXY_DATA_DIR": str(self._data)}) as state:
            yield state


async def test_a_store_that_can_be_used_again_is_used_and_each_reason_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    sink = logger.add(told.append, level="WARNING", format="{message}")
    opening = Opening(tmp_path, *(StoreFullError(why) for why in ("full", "full", "fuller")))
    clock, used = FakeClock(), list[ProxyState]()
    background = Background(clock.sleep, clock.now, clock.wall)

    async with StateOpener(opening, clock, background) as opener:
        assert await opener.open() is None
        opener.when_open(used.append)
        while not used:
            await clock.advance(1.0)
        assert opener.current is used[0]

    logger.remove(sink)
    assert [line.rpartition(": ")[2].strip() for line in told if "check" not in line] == [
        "full",
        "fuller",
        "the store can be used again",
    ]


async def test_a_store_that_opens_at_once_is_used_at_once(tmp_path: Path) -> None:
    used = list[ProxyState]()

    async with StateOpener(Opening(tmp_path), FakeClock(), Background()) as opener:
        state = await opener.open()
        opener.when_open(used.append)

    assert used == [state]


async def test_a_failed_migration_is_not_tried_again(tmp_path: Path) -> None:
    opening = Opening(tmp_path, StoreMigrationError("no"), StoreFullError("never seen"))
    clock = FakeClock()

    async with StateOpener(opening, clock, Background(clock.sleep, clock.now, clock.wall)) as opener:
        await opener.open()
        opener.when_open(lambda _: None)
        await clock.advance(60.0)

    assert len(opening.left) == 1
