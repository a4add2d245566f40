"""What every runtime must do: subclass a suite, give it a fixture `stage`, and pytest checks it."""

# The names of the tests say what they check.
# ruff: noqa: D102

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from enum import StrEnum
from typing import Any

import pytest

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.logring import MAX_LINE
from ai_proxy.core.placement import AS_DECLARED
from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import Exit, Handle, Service
from ai_proxy.platform import tasks
from ai_proxy.testing.clock import settle


class Play(StrEnum):
    """What a service does in the tests."""

    RUNS = "runs"
    """Runs until it is stopped, and says `hello` first."""
    EXITS = "exits"
    """Says `cannot go on` and exits with code 3."""
    STUBBORN = "stubborn"
    """Ignores the polite request to end."""
    FLOODS = "floods"
    """Writes to its log without end."""
    CANNOT_START = "cannot_start"
    """Cannot be launched."""


async def start(runtime: Runtime, service: Service) -> Handle:
    """Start a service as declared; what it tells on the way is dropped."""
    return await runtime.start(service, AS_DECLARED, lambda _: None)


async def exit_of(runtime: Runtime, handle: Handle) -> Exit:
    """Watch what runs until it has ended, and return how.

    Raises:
        AssertionError: The runtime ceased to report before the exit, or went on after it.
    """
    ends = [report async for report in runtime.watch(handle) if isinstance(report, Exit)]
    assert len(ends) == 1, f"there are {len(ends)} exits among the reports of {handle}"
    return ends[0]


class Stage(ABC):
    """A runtime, and services for it to run.

    Attributes:
        runtime: The one under test.
    """

    runtime: Runtime

    @abstractmethod
    def service(self, play: Play) -> Service:
        """Return a service that does this."""

    def reopen(self) -> Runtime:
        """Return another runtime over the same state, as after a restart of the proxy."""
        raise NotImplementedError

    async def start(self, service: Service) -> Handle:
        """Start a service as declared."""
        return await start(self.runtime, service)

    async def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that takes time; a fake clock is moved meanwhile."""
        return await work

    async def heard(self, service: Service) -> None:
        """Return once the service has written to its log."""
        ring = self.runtime.logs(service.id)
        written = asyncio.Event()
        stop = ring.watch(lambda _: written.set())
        async with asyncio.timeout(10.0):
            if not ring.tail(1):
                await written.wait()
        stop()


GRACE = 0.2
"""Seconds given to a stubborn service."""


class RuntimeContract:
    """For every runtime, also one that does not own what it runs."""

    @pytest.fixture
    def stage(self) -> Stage:
        """Return the stage; subclasses must provide it."""
        raise NotImplementedError

    async def test_start_names_the_service_and_where_it_answers(self, stage: Stage) -> None:
        service = stage.service(Play.RUNS)
        handle = await stage.start(service)
        assert (handle.service_id, handle.config_hash) == (service.id, service.config_hash)
        assert handle.upstreams

    async def test_wait_returns_once_it_is_stopped_to_all_who_wait(self, stage: Stage) -> None:
        handle = await stage.start(stage.service(Play.RUNS))
        waiting = [tasks.spawn(exit_of(stage.runtime, handle), "wait") for _ in range(2)]
        await settle()
        assert not any(task.done() for task in waiting)
        await stage.run(stage.runtime.stop(handle, 5.0))
        first, second = await asyncio.gather(*waiting)
        assert first == second

    async def test_one_who_ceases_to_wait_does_not_disturb_the_others(self, stage: Stage) -> None:
        handle = await stage.start(stage.service(Play.RUNS))
        impatient, patient = (tasks.spawn(exit_of(stage.runtime, handle), "wait") for _ in range(2))
        await settle()
        await tasks.cancel(impatient)
        assert not patient.done()
        await stage.run(stage.runtime.stop(handle, 5.0))
        assert (await patient).detail

    async def test_stopping_and_waiting_again_return_at_once(self, stage: Stage) -> None:
        handle = await stage.start(stage.service(Play.RUNS))
        await stage.run(stage.runtime.stop(handle, 5.0))
        await stage.runtime.stop(handle, 5.0)
        assert (await exit_of(stage.runtime, handle)).detail

    async def test_it_can_be_started_again_after_a_stop(self, stage: Stage) -> None:
        service = stage.service(Play.RUNS)
        await stage.run(stage.runtime.stop(await stage.start(service), 5.0))
        again = await stage.start(service)
        waiting = tasks.spawn(exit_of(stage.runtime, again), "wait")
        await settle()
        assert not waiting.done()
        await tasks.cancel(waiting)

    async def test_what_cannot_be_launched_says_why_and_leaves_nothing(self, stage: Stage) -> None:
        with pytest.raises(RuntimeFailureError, match=r"\w+ .*: \w+"):
            await stage.start(stage.service(Play.CANNOT_START))
        assert list(await stage.runtime.handles()) == []

    async def test_a_cancelled_start_leaves_nothing_that_is_not_listed(self, stage: Stage) -> None:
        starting = tasks.spawn(stage.start(stage.service(Play.RUNS)), "start")
        await asyncio.sleep(0)
        await tasks.cancel(starting)
        for handle in await stage.runtime.handles():
            await stage.run(stage.runtime.stop(handle, 5.0))
        assert list(await stage.runtime.handles()) == []


class OwningRuntimeContract(RuntimeContract):
    """For runtimes that own what they run: they end it, see its output, and find it again."""

    async def test_what_runs_is_listed_until_it_is_stopped(self, stage: Stage) -> None:
        handle = await stage.start(stage.service(Play.RUNS))
        assert list(await stage.runtime.handles()) == [handle]
        await stage.run(stage.runtime.stop(handle, 5.0))
        assert list(await stage.runtime.handles()) == []

    async def test_an_exit_is_noticed_with_its_code(self, stage: Stage) -> None:
        handle = await stage.start(stage.service(Play.EXITS))
        end = await stage.run(exit_of(stage.runtime, handle))
        assert (end.code, end.detail) == (3, "exit code 3")
        assert list(await stage.runtime.handles()) == []

    async def test_a_later_start_is_another_instance(self, stage: Stage) -> None:
        service = stage.service(Play.EXITS)
        first = await stage.start(service)
        await stage.run(exit_of(stage.runtime, first))
        second = await stage.start(service)
        assert first != second

    async def test_the_stubborn_are_ended_by_force_after_the_grace(self, stage: Stage) -> None:
        service = stage.service(Play.STUBBORN)
        handle = await stage.start(service)
        await stage.heard(service)
        await stage.run(stage.runtime.stop(handle, GRACE))
        assert list(await stage.runtime.handles()) == []
        assert (await exit_of(stage.runtime, handle)).code in (-9, 137, None)

    async def test_the_last_words_are_there_when_wait_returns(self, stage: Stage) -> None:
        service = stage.service(Play.EXITS)
        await stage.run(exit_of(stage.runtime, await stage.start(service)))
        assert "cannot go on" in stage.runtime.logs(service.id).tail(1)[0].text

    async def test_a_flood_of_output_is_cut_and_does_not_keep_it_from_ending(self, stage: Stage) -> None:
        service = stage.service(Play.FLOODS)
        handle = await stage.start(service)
        await stage.heard(service)
        await stage.run(stage.runtime.stop(handle, 5.0))
        lines = stage.runtime.logs(service.id).tail(1_000_000)
        assert len(lines) <= 2000
        assert all(len(line.text) <= MAX_LINE for line in lines)

    async def test_the_next_proxy_finds_it_and_can_end_it(self, stage: Stage) -> None:
        handle = await stage.start(stage.service(Play.RUNS))
        reopened = stage.reopen()
        assert list(await reopened.handles()) == [handle]
        waiting = tasks.spawn(exit_of(reopened, handle), "wait")
        await settle()
        assert not waiting.done()
        await stage.run(reopened.stop(handle, 5.0))
        assert (await waiting).detail
        assert list(await reopened.handles()) == []

    async def test_the_next_proxy_does_not_list_what_has_ended(self, stage: Stage) -> None:
        handle = await stage.start(stage.service(Play.EXITS))
        await stage.run(exit_of(stage.runtime, handle))
        reopened = stage.reopen()
        assert list(await reopened.handles()) == []
        assert (await exit_of(reopened, handle)).code in (None, 3)
