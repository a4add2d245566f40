"""What every runtime and engine must do: subclass a suite, give it its fixtures, and pytest checks it."""

# The names of the tests say what they check.
# ruff: noqa: D102

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import pytest

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.logring import MAX_LINE
from ai_proxy.core.placement import AS_DECLARED
from ai_proxy.core.ports import Engine, Runtime
from ai_proxy.core.service import HANDLE_VERSION, Exit, ExternalLaunch, Handle, Service, Upstream
from ai_proxy.platform import tasks
from ai_proxy.testing.fake_engine import Behaviour
from ai_proxy.testing.fakes import settle

__all__ = [
    "EngineContract",
    "OwningRuntimeContract",
    "Play",
    "RuntimeContract",
    "Serve",
    "Stage",
    "Subject",
    "closed_port",
    "exit_of",
    "start",
]


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
    """Start a service as declared; drop its progress."""
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
        """Return another runtime over the same state, as after a restart; for `OwningRuntimeContract`."""
        raise NotImplementedError("a stage of a runtime that owns what it runs must override `reopen`")

    async def start(self, service: Service) -> Handle:
        """Start a service as declared."""
        return await start(self.runtime, service)

    async def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that takes time; a stage with a fake clock moves it meanwhile."""
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
        raise NotImplementedError("override the fixture `stage`")

    async def test_start_names_the_service_and_where_it_answers(self, stage: Stage) -> None:
        service = stage.service(Play.RUNS)
        handle = await stage.start(service)
        assert (handle.service_id, handle.config_hash) == (service.id, service.config_hash)
        assert handle.version == HANDLE_VERSION
        assert handle.upstreams

    async def test_every_watcher_sees_the_exit_once_it_is_stopped(self, stage: Stage) -> None:
        handle = await stage.start(stage.service(Play.RUNS))
        waiting = [tasks.spawn(exit_of(stage.runtime, handle), "wait") for _ in range(2)]
        await settle()
        assert not any(task.done() for task in waiting)
        await stage.run(stage.runtime.stop(handle, 5.0))
        first, second = await asyncio.gather(*waiting)
        assert first == second

    async def test_a_watcher_that_leaves_does_not_disturb_the_others(self, stage: Stage) -> None:
        handle = await stage.start(stage.service(Play.RUNS))
        leaving, staying = (tasks.spawn(exit_of(stage.runtime, handle), "wait") for _ in range(2))
        await settle()
        await tasks.cancel(leaving)
        assert not staying.done()
        await stage.run(stage.runtime.stop(handle, 5.0))
        assert (await staying).detail

    async def test_after_the_exit_stopping_and_watching_again_return_at_once(self, stage: Stage) -> None:
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

    async def test_the_last_lines_are_in_the_log_when_the_exit_is_reported(self, stage: Stage) -> None:
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


LONGEST_PROBE = 6.0
"""Longest time that a probe may take, in seconds."""


LENIENT = ("openai", "generic")
"""Engines for which any answer is a sign of life, since their paths are unknown."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A backend to ask, and the service it belongs to."""

    upstream: Upstream
    health_path: str | None = "/health"

    @property
    def service(self) -> Service:
        """A service that answers there."""
        launch = ExternalLaunch((self.upstream,))
        return Service("subject", "any", "any", launch, config_hash="1", health_path=self.health_path)


type Serve = Callable[[Behaviour], Subject]


class EngineContract:
    """For every engine: `engine` is the one under test, `serve(behaviour)` runs a backend for it."""

    @pytest.fixture
    def engine(self) -> Engine:
        """Return the engine; subclasses must provide it."""
        raise NotImplementedError("override the fixture `engine`")

    @pytest.fixture
    def serve(self) -> Serve:
        """Return what runs a backend of a behaviour; subclasses must provide it."""
        raise NotImplementedError("override the fixture `serve`")

    async def test_a_backend_that_serves_is_ready(self, engine: Engine, serve: Serve) -> None:
        subject = serve(Behaviour.OK)
        assert (await engine.probe(subject.service, subject.upstream)).ready

    async def test_a_backend_that_loads_is_not_ready_and_says_so(self, engine: Engine, serve: Serve) -> None:
        subject = serve(Behaviour.NEVER_READY)
        probe = await engine.probe(subject.service, subject.upstream)
        assert (probe.ready, probe.detail) == (False, "loading model")

    async def test_nobody_listening_is_not_ready(self, engine: Engine) -> None:
        with closed_port() as port:
            subject = Subject(Upstream("127.0.0.1", port))
            probe = await engine.probe(subject.service, subject.upstream)
            assert (probe.ready, probe.detail) == (False, "connection refused")
            assert list(await engine.models(subject.service, subject.upstream)) == []

    @pytest.mark.parametrize("behaviour", [Behaviour.GARBAGE, Behaviour.HANG])
    async def test_no_sensible_answer_is_not_ready_and_never_raises(
        self, engine: Engine, serve: Serve, behaviour: Behaviour
    ) -> None:
        subject = serve(behaviour)
        async with asyncio.timeout(LONGEST_PROBE):
            probe = await engine.probe(subject.service, subject.upstream)
        assert not probe.ready
        assert probe.detail
        async with asyncio.timeout(LONGEST_PROBE):
            assert list(await engine.models(subject.service, subject.upstream)) == []

    async def test_without_a_health_path_a_connection_is_enough(self, engine: Engine, serve: Serve) -> None:
        subject = replace(serve(Behaviour.HANG), health_path=None)
        assert (await engine.probe(subject.service, subject.upstream)).ready

    async def test_the_models_that_a_backend_lists_have_names_of_their_own(
        self, engine: Engine, serve: Serve
    ) -> None:
        subject = serve(Behaviour.OK)
        models = await engine.models(subject.service, subject.upstream)
        names = [model.id for model in models]
        assert all(names)
        assert len(set(names)) == len(names)
        assert bool(names) == (engine.name != "generic")

    async def test_what_a_model_takes_its_engine_takes(self, engine: Engine, serve: Serve) -> None:
        subject = serve(Behaviour.OK)
        models = await engine.models(subject.service, subject.upstream)
        assert all((model.modalities or frozenset()) <= engine.abilities.modalities for model in models)

    async def test_a_path_that_is_not_there_is_no_sign_of_health(self, engine: Engine, serve: Serve) -> None:
        subject = replace(serve(Behaviour.OK), health_path="/no-such-path")
        probe = await engine.probe(subject.service, subject.upstream)
        assert probe.ready == (engine.name in LENIENT), probe.detail

    async def test_it_names_itself_and_what_it_can_do(self, engine: Engine) -> None:
        assert engine.name
        assert engine.abilities.title

    async def test_every_rule_about_a_parameter_can_be_followed_and_says_why(self, engine: Engine) -> None:
        for name, rule in engine.abilities.parameters.items():
            assert rule.why, name
            assert rule.low <= rule.high, name


@contextmanager
def closed_port() -> Iterator[int]:
    """Hold a port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
