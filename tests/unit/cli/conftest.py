import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.rigs.management import create_app
from tests.rigs.plane import FakePlane, view

from ai_proxy.api.middleware import owner_principal
from ai_proxy.api.sockets import serve_unix
from ai_proxy.cli.main import run
from ai_proxy.core.lifecycle import State
from ai_proxy.platform.run_folder import create_instance_folder


@pytest.fixture(autouse=True)
def _own_logging(logging_as_it_was: None) -> None:
    """Commands configure logging."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The result that was printed for scripts."""
        answer = json.loads(self.out)
        assert answer["version"] == "1.0"
        return answer["data"]

    @property
    def error(self) -> dict[str, str]:
        """The error that was printed for scripts."""
        error: dict[str, str] = json.loads(self.err)["error"]
        return error


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Runs commands against a base of run directories."""

    base: Path
    capsys: pytest.CaptureFixture[str]

    async def __call__(self, *words: str) -> Ran:
        """Run one command; in a thread, since it has an event loop of its own."""
        self.capsys.readouterr()
        code = await asyncio.to_thread(run, [*words, "--run-dir", str(self.base)])
        return Ran(code, *self.capsys.readouterr())


@dataclass(frozen=True, slots=True)
class Running:
    """A command in a process of its own."""

    process: asyncio.subprocess.Process
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader


@asynccontextmanager
async def running(*words: str) -> AsyncIterator[Running]:
    """Run a command in a process of its own, to watch it or to send it signals."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ai_proxy.cli.main", *words, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield Running(process, process.stdout, process.stderr)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def command(base: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(base, capsys)


@pytest.fixture
async def plane(base: Path) -> AsyncIterator[FakePlane]:
    """A running instance with two services."""
    plane = FakePlane(view("llama3"), view("coder", State.READY, starts=1, upstreams=("http://127.0.0.1:9",)))
    folder = create_instance_folder(base, 11000)
    app = create_app(plane, lambda: (b"", "text/plain"), "1.2.3")
    async with serve_unix(folder / "control.sock", app, owner_principal):
        yield plane


@dataclass(frozen=True, slots=True)
class Keeper:
    """Runs commands that open the data directory themselves, without a running instance."""

    data: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> Ran:
        """Run one command."""
        self.capsys.readouterr()
        return Ran(run(words), *self.capsys.readouterr())

    def log(self) -> list[tuple[str, str]]:
        """Return what the audit log holds: what was done, and the result."""
        return [(entry["what"], entry["result"]) for entry in self("audit", "--format", "json").data]


@pytest.fixture
def keeper(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Keeper:
    """Commands on an empty data directory, of which no configuration is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("AI_PROXY_DATA_DIR", str(data))
    return Keeper(data, capsys)
