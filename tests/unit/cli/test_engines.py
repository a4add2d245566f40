from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.rigs.fake_detector import FakeDetector, detection
from tests.rigs.management import create_app
from tests.rigs.plane import FakePlane
from tests.rigs.recorded_engine import recorded_engine
from tests.unit.cli.conftest import CommandLine

from ai_proxy.api.middleware import owner_principal
from ai_proxy.api.sockets import serve_unix
from ai_proxy.core.detection import EngineState
from ai_proxy.platform.run_folder import create_instance_folder
from ai_proxy.testing.contracts import closed_port


@pytest.fixture
async def detector(base: Path) -> AsyncIterator[FakeDetector]:
    """What a running instance finds engines with."""
    detector = FakeDetector(
        detection("ollama"),
        detection("vllm", EngineState.ERROR_API, models=(), version=None, latency_ms=None),
    )
    app = create_app(FakePlane(), lambda: (b"", "text/plain"), "1.2.3", detector=detector)
    async with serve_unix(create_instance_folder(base, 11000) / "control.sock", app, owner_principal):
        yield detector


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine with an Ollama, of which no configuration is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with ExitStack() as stack:
        for variable in ("LLAMA_CPP_PORT", "VLLM_PORT", "LMSTUDIO_API_HOST"):
            monkeypatch.setenv(variable, str(stack.enter_context(closed_port())))
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{stack.enter_context(recorded_engine('ollama'))}")
        yield


async def test_a_running_instance_is_asked(command: CommandLine, detector: FakeDetector) -> None:
    ran = await command("engines", "detect")

    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["ENGINE", "STATE", "ADDRESS", "VERSION", "LATENCY", "MODELS", "DETAIL"],
        ["ollama", "RunningHealthy", "http://127.0.0.1:9", "1.2.3", "2", "ms", "1", "lists", "1", "model"],
        ["vllm", "ErrorApi", "http://127.0.0.1:9", "-", "-", "-", "lists", "1", "model"],
    ]
    assert detector.asked == [(None, False)]


async def test_one_engine_can_be_asked_afresh(command: CommandLine, detector: FakeDetector) -> None:
    ran = await command("engines", "detect", "--engine", "ollama", "--fresh", "--format", "json")

    assert [one["engine"] for one in ran.data] == ["ollama"]
    assert detector.asked == [("ollama", True)]


async def test_an_engine_that_nobody_looks_for_is_the_users_error(
    command: CommandLine, detector: FakeDetector
) -> None:
    ran = await command("engines", "detect", "--engine", "olama", "--format", "json")

    assert (ran.code, ran.error["code"]) == (1, "unknown_engine")


async def test_without_a_running_instance_the_command_looks_itself(
    command: CommandLine, machine: None
) -> None:
    ran = await command("engines", "detect", "--format", "json")

    found = {one["engine"]: one for one in ran.data}
    assert list(found) == ["llamacpp", "vllm", "ollama", "lmstudio"]
    assert (found["ollama"]["state"], found["ollama"]["models"]) == (
        "RunningHealthy",
        ["emb:latest", "tiny:latest"],
    )
    assert {found[name]["detail"] for name in ("llamacpp", "vllm", "lmstudio")} == {"nothing listens there"}


async def test_both_ways_know_the_same_engines(command: CommandLine, machine: None) -> None:
    ran = await command("engines", "detect", "--engine", "olama", "--format", "json")

    assert (ran.code, ran.error["code"]) == (1, "unknown_engine")


async def test_an_instance_that_was_chosen_must_run(command: CommandLine, machine: None) -> None:
    ran = await command("engines", "detect", "--port", "11999")

    assert ran.code == 1
    assert "no ai-proxy is running on port 11999" in ran.err
