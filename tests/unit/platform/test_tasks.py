import asyncio

import pytest
from loguru import logger

from ai_proxy.platform.tasks import Background


class Naps:
    """Sleeps that end when the test says so, and a clock that stands still."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self.over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        await self.asked.put(seconds)
        await self.over.wait()
        self.over.clear()

    def background(self) -> Background:
        return Background(self.sleep, now=lambda: 0.0, wall=lambda: 7.0)


async def test_work_that_fails_is_logged_at_once_and_restarted_with_back_off() -> None:
    naps, runs, logged = Naps(), asyncio.Queue[int](), list[str]()
    sink = logger.add(lambda message: logged.append(str(message)), format="{message}")
    count = 0

    async def work() -> None:
        nonlocal count
        count += 1
        await runs.put(count)
        if count < 3:
            raise ValueError("a surprising line")
        await asyncio.Event().wait()

    background = naps.background()
    background.run(work, "docker events")
    pauses = []
    for _ in range(2):
        pauses.append(await naps.asked.get())
        naps.over.set()
    while await runs.get() < 3:
        pass

    logger.remove(sink)
    await background.close()
    assert pauses == [1.0, 2.0]
    assert "docker events failed; restarting it in 1 s" in logged[0]
    assert "a surprising line" in logged[0]


async def test_restarts_tell_the_count_the_error_and_whether_the_work_runs_again() -> None:
    naps, running = Naps(), asyncio.Event()
    failures = iter([ValueError("no such row")])

    async def work() -> None:
        for error in failures:
            raise error
        running.set()
        await asyncio.Event().wait()

    background = naps.background()
    background.run(work, "key changes")
    await naps.asked.get()
    down = background.restarts["key changes"]
    naps.over.set()
    await running.wait()
    up = background.restarts["key changes"]

    await background.close()
    assert (down.count, down.error, down.at, down.waiting) == (1, "ValueError: no such row", 7.0, True)
    assert not up.waiting


async def test_work_that_returns_is_not_restarted() -> None:
    background = Background()

    async def work() -> None:
        return

    await background.run(work, "once")

    assert background.restarts == {}


async def test_closing_ends_all_work() -> None:
    background, begun = Background(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = background.run(work, "for ever")
    await begun.wait()
    await background.close()

    assert task.cancelled()


async def test_a_cancelled_task_is_not_restarted() -> None:
    background, begun = Background(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = background.run(work, "for ever")
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert background.restarts == {}


async def test_an_owner_that_fails_itself_ends_the_group_it_runs_in() -> None:
    async def sleep(seconds: float) -> None:
        raise RuntimeError(f"no clock for {seconds:g} s")

    async def work() -> None:
        raise ValueError("a surprising line")

    async def serve() -> None:
        async with asyncio.TaskGroup() as group:
            Background(sleep, group=group).run(work, "docker events")
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as failed:
        await serve()

    assert [str(error) for error in failed.value.exceptions] == ["no clock for 1 s"]


async def test_work_that_runs_in_a_group_can_be_closed() -> None:
    async with asyncio.TaskGroup() as group:
        background = Background(group=group)
        background.run(asyncio.Event().wait, "docker events")  # type: ignore[arg-type]
        await background.close()
