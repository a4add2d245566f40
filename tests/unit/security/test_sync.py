import asyncio
from collections.abc import AsyncGenerator, Mapping

from ai_proxy.core.errors import InvalidPolicyError, StoreUnavailableError
from ai_proxy.core.ports import Clock
from ai_proxy.platform.tasks import cancel, spawn
from ai_proxy.security.sync import RETRY_AFTER, WRITE_EVERY, follow_changes, write_batches
from ai_proxy.testing.fakes import FakeClock


class Feed:
    """Counts of changes, looked at every second; the store can be away."""

    def __init__(self) -> None:
        self.counts = {"keys": 1, "policy": 1}
        self.away = False

    async def watch(self, clock: Clock) -> AsyncGenerator[Mapping[str, int]]:
        while True:
            if self.away:
                raise StoreUnavailableError("the store is away")
            yield self.counts
            await clock.sleep(1.0)


async def test_only_what_changed_is_loaded_and_an_outage_is_lived_through(clock: FakeClock) -> None:
    feed, loaded = Feed(), []

    async def load() -> None:
        loaded.append(feed.counts["keys"])

    following = spawn(follow_changes(feed, {"keys": load}, clock), "follow")
    await clock.advance(4.0)
    assert loaded == [1]

    feed.away, feed.counts = True, {"keys": 2}
    await clock.advance(4.0)
    feed.away = False
    await clock.advance(RETRY_AFTER)

    assert loaded == [1, 2]
    await cancel(following)


async def test_what_cannot_be_loaded_keeps_nothing_else_from_it_and_is_tried_again(clock: FakeClock) -> None:
    feed, loaded = Feed(), []
    is_sound = False

    async def load_policy() -> None:
        if not is_sound:
            raise InvalidPolicyError("nonsense")
        loaded.append("policy")

    async def load_keys() -> None:
        loaded.append("keys")

    loads = {"policy": load_policy, "keys": load_keys}
    following = spawn(follow_changes(feed, loads, clock), "follow")
    await clock.advance(RETRY_AFTER * 4)
    assert loaded == ["keys"]

    is_sound = True
    await clock.advance(RETRY_AFTER)

    assert loaded == ["keys", "policy"]
    await cancel(following)


async def test_a_batch_that_fails_keeps_neither_the_others_nor_the_next_from_being_written(
    clock: FakeClock,
) -> None:
    written, pending = [], asyncio.Event()

    async def fails() -> None:
        written.append("tried")
        raise StoreUnavailableError("the store is away")

    async def works() -> None:
        written.append("done")

    writing = spawn(write_batches(pending, [fails, works], clock, asyncio.Lock()), "write")
    pending.set()
    await clock.advance(WRITE_EVERY * 2)

    assert written == ["tried", "done"] * 2
    await cancel(writing)


async def test_without_anything_to_write_nothing_wakes_up(clock: FakeClock) -> None:
    written, pending = [], asyncio.Event()

    async def flush() -> None:
        written.append("done")

    writing = spawn(write_batches(pending, [flush], clock, asyncio.Lock()), "write")
    await clock.advance(WRITE_EVERY * 5)
    assert written == []

    pending.set()
    await clock.advance(WRITE_EVERY * 5)

    assert written == ["done"]
    await cancel(writing)
