"""The program as people run it: a process of its own, spoken to over HTTP and by its command line."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from ai_proxy.data import demo_model_path
from ai_proxy.testing.fake_engine import Behaviour, fake_engine_command

PROGRAM = Path(sys.executable).with_name("ai-proxy")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually[T](look: Callable[[], T | None], seconds: float = 60.0) -> T:
    """Return the first true thing that a look at the outside world brings."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"still not true after {seconds:g} s")


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Proxy:
    """An ai-proxy under test, which may be killed and started again."""

    folder: Path
    run_dir: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "serve.log"
        self.environment["AI_PROXY_DATA_DIR"] = str(self.folder / "data")
        self.environment["AI_PROXY_DETECT"] = "0"  # what runs on this machine is none of a test's business

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    def configure(self, **services: dict[str, Any]) -> None:
        """Write a configuration; JSON is YAML."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(json.dumps({"server": {"port": self.port}, "services": services}, indent=1))
        fresh.replace(self.config)  # at once, as editors do: the proxy may be reading it

    def serve(self, *options: str) -> None:
        """Start it and wait until it answers."""
        self.launch(*options)
        eventually(self.answers)

    def launch(self, *options: str) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", "--config", self.config, "--run-dir", self.run_dir, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )

    def told(self) -> str:
        """Return its log."""
        return self.log.read_text() if self.log.exists() else ""

    def answers(self) -> bool:
        """Tell whether it answers."""
        assert self.process is not None
        assert self.process.poll() is None, f"it ended:\n{self.told()}"
        try:
            return self.ask("/health").status == 200
        except OSError:
            return False

    def ask(self, path: str, body: Any = None, method: str | None = None, wait: float = 60.0) -> Answer:
        """Send a request and read the whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=wait)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            sent = None if body is None else json.dumps(body)
            connection.request(method or ("GET" if body is None else "POST"), path, sent, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def service(self, name: str) -> Any:
        return self.ask(f"/api/v1/service/{name}").json

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line against it."""
        environment = {**os.environ, **self.environment, "AI_PROXY_RUN_DIR": str(self.run_dir)}
        return subprocess.run(
            [PROGRAM, *words], capture_output=True, text=True, timeout=120, env=environment, cwd=self.folder
        )

    def kill(self) -> None:
        """End it without a chance to clean up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """End it as systemd would, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)

    def backends(self) -> list[int]:
        """Return the pids of what it has started, whoever their parent is by now."""
        return [process.pid for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            owner = process.environ().get("AI_PROXY_OWNER", "")
            return owner.startswith(str(self.run_dir)) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.backends():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory(prefix="aip-") as run_dir:  # tmp_path is too long for Unix sockets
        running = Proxy(tmp_path, Path(run_dir))
        yield running
        running.clean_up()


def llamacpp(*args: str, **settings: Any) -> dict[str, Any]:
    """Return a service with the real llama.cpp and the tiny model."""
    return {
        "type": "llama-cpp-server",
        "args": ["-m", str(demo_model_path()), "-c", "512", *args],
        "stop_grace": "5s",
        **settings,
    }


def fake(behaviour: Behaviour, *options: str, **settings: Any) -> dict[str, Any]:
    """Return a service whose backend misbehaves in a way that has a name."""
    return {
        "type": "generic",
        "command": [*fake_engine_command(behaviour, *options)],
        "stop_grace": "1s",
        "start_timeout": "10s",
        "health_path": "/health",
        **settings,
    }


def chat(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **more}
