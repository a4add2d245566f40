from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.rigs.recorder import NullRecorder

from ai_proxy.control.holds import Holds
from ai_proxy.control.plane import ControlPlane
from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import ProcessLaunch, RuntimeKind, Service, StartPolicy
from ai_proxy.runtimes.external import ExternalRuntime
from ai_proxy.testing.fakes import FakeClock, FakeProbeEngine, FakeRuntime, Machine


def declare(name: str = "svc", config_hash: str = "1", start: StartPolicy = StartPolicy.ON_DEMAND) -> Service:
    return Service(
        id=name,
        type="generic",
        engine="fake",
        launch=ProcessLaunch(("serve", name)),
        config_hash=config_hash,
        start=start,
        idle_timeout=100.0,
        start_timeout=30.0,
        stop_grace=3.0,
        drain_timeout=20.0,
        max_waiting=10,
    )


@dataclass
class Stage:
    """A control plane with everything around it faked."""

    clock: FakeClock
    runtime: FakeRuntime
    engine: FakeProbeEngine
    plane: ControlPlane


def build(clock: FakeClock, machine: Machine | None = None, holds: Holds | None = None) -> Stage:
    runtime = FakeRuntime(clock, machine)
    engine = FakeProbeEngine("fake")
    runtimes: dict[str, Runtime] = {RuntimeKind.PROCESS: runtime, RuntimeKind.EXTERNAL: ExternalRuntime()}
    plane = ControlPlane(clock, runtimes, {"fake": engine}, NullRecorder(), holds=holds)
    return Stage(clock, runtime, engine, plane)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    built = build(FakeClock())
    yield built
    built.runtime.available = True
    await close(built)


async def close(stage: Stage) -> None:
    """Close a plane while its clock goes on."""
    from ai_proxy.platform.tasks import spawn

    closing = spawn(stage.plane.close(), "close")
    await stage.clock.advance(120)
    await closing
