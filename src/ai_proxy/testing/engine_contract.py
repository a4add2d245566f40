"""What every engine must do: subclass the suite, give it the fixtures, and pytest checks it."""

# The names of the tests say what they check.
# ruff: noqa: D102

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from ai_proxy.core.ports import Engine
from ai_proxy.core.service import ExternalLaunch, Service, Upstream
from ai_proxy.testing.fake_engine import Behaviour

MOST = 6.0
"""Longest time that a probe may take, in seconds."""


LENIENT = ("openai", "generic")
"""Engines of which any answer is a sign of life: what they have and what not cannot be known."""


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
    """The tests: `engine` is the one under test, `serve(behaviour)` runs a backend that it can talk to."""

    @pytest.fixture
    def engine(self) -> Engine:
        """Return the engine; subclasses must provide it."""
        raise NotImplementedError

    @pytest.fixture
    def serve(self) -> Serve:
        """Return what runs a backend of a behaviour; subclasses must provide it."""
        raise NotImplementedError

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
        async with asyncio.timeout(MOST):
            probe = await engine.probe(subject.service, subject.upstream)
        assert not probe.ready
        assert probe.detail
        async with asyncio.timeout(MOST):
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
