from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.process.runtime import ProcessRuntime

type Reopen = Callable[[], ProcessRuntime]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "processes"


@pytest.fixture
async def reopen(state_dir: Path) -> AsyncIterator[Reopen]:
    """Makes runtimes over the same state; ends whatever they leave running."""
    runtimes: list[ProcessRuntime] = []

    def make() -> ProcessRuntime:
        runtimes.append(ProcessRuntime(state_dir, owner=str(state_dir), background=Background()))
        return runtimes[-1]

    yield make
    sweeper = make()
    for handle in await sweeper.handles():
        await sweeper.stop(handle, 0.0)
    for runtime in runtimes:
        await runtime.aclose()


@pytest.fixture
def runtime(reopen: Reopen) -> ProcessRuntime:
    return reopen()
