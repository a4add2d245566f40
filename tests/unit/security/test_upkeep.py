import asyncio

from ai_proxy.core.errors import StoreUnavailableError
from ai_proxy.platform.tasks import cancel, spawn
from ai_proxy.security.upkeep import LOOK_EVERY, WRITE_EVERY, follow_changes, write_batches
from ai_proxy.testing.clock import FakeClock


class Counts:
    """Counts of changes that can be away."""

    def __init__(self) -> None:
        self.keys = 1
        self.away = False

    async def counts(self) -> dict[str, int]:
        if self.away:
            raise StoreUnavailableError("the store is away")
        return {"keys": self.keys}


async def test_only_what_changed_is_loaded_and_an_outage_is_lived_through(clock: FakeClock) -> None:
    counts, loaded = Counts(), []

    async def load() -> None:
        loaded.append(counts.keys)

    following = spawn(follow_changes(counts, {"keys": load}, clock), "follow")
    await clock.advance(LOOK_EVERY * 4)
    assert loaded == [1]

    counts.away, counts.keys = True, 2
    await clock.advance(LOOK_EVERY * 4)
    counts.away = False
    await clock.advance(LOOK_EVERY)

    assert loaded == [1, 2]
    await cancel(following)


async def test_a_batch_that_fails_keeps_neither_the_others_nor_the_next_from_being_written(
    clock: FakeClock,
) -> None:
    written = []

    async def fails() -> None:
        written.append("tried")
        raise StoreUnavailableError("the store is away")

    async def works() -> None:
        written.append("done")

    writing = spawn(write_batches([fails, works], clock, asyncio.Lock()), "write")
    await clock.advance(WRITE_EVERY * 2)

    assert written == ["tried", "done"] * 2
    await cancel(writing)
