"""The proxy in a container, run as the Dockerfile says, with the engine's socket: services are siblings."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import IMAGE
from tests.e2e.conftest import Answer, chat, eventually
from tests.rigs.docker_engine import DockerEngine

from ai_proxy.data import DEMO_SENTENCE, demo_model_path

PROXY_IMAGE = "ai-proxy/proxy"
NAME = "proxy-under-test"
VOLUMES = ("proxy-under-test-data", "proxy-under-test-new-data")
CHAT = "/service/tiny/v1/chat/completions"
HARDENED = (
    *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
    "--tmpfs=/run/ai-proxy:mode=0700,uid=10001,gid=10001",
)
"""As in compose.yaml."""


class Container:
    """A container with ai-proxy in it."""

    def __init__(self, engine: DockerEngine, folder: Path) -> None:
        self.engine = engine
        self.config = folder / "config"
        self.config.mkdir()

    def configure(self, **services: dict[str, Any]) -> None:
        # It listens on all of its addresses, though nobody else can reach them.
        config = {"security": {"allow_unauthenticated": True}, "services": services}
        (self.config / "config.yaml").write_text(json.dumps(config))

    def run(self, *options: str, data: str = VOLUMES[0]) -> None:
        """Start it, as people are told to, and wait until it serves."""
        socket = self.engine.host.removeprefix("unix://")
        self.engine.docker(
            *("run", "--detach", f"--name={NAME}", *HARDENED, *options),
            f"--group-add={Path(socket).stat().st_gid}",
            f"--volume={socket}:/var/run/docker.sock",
            f"--volume={self.config}:/etc/ai-proxy:ro",
            f"--volume={data}:/var/lib/ai-proxy",
            PROXY_IMAGE,
        )
        self.serves()

    def serves(self) -> None:
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return self.ask("/health").status == 200
        except OSError:
            logs = self.engine.docker("logs", "--tail=20", NAME)
            assert self.facts["State"]["Running"], f"it ended:\n{logs.stdout}{logs.stderr}"
            return False

    @property
    def facts(self) -> dict[str, Any]:
        return self.engine.inspect(NAME)

    def address_of(self, name: str) -> str:
        (address,) = self.engine.docker(
            "inspect", "--format={{.NetworkSettings.IPAddress}}", name
        ).stdout.split()
        return address

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Answer:
        """Send a request from the host to its address in Docker's network."""
        connection = http.client.HTTPConnection(self.address_of(NAME), 11000, timeout=60)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method or ("POST" if sent else "GET"), path, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.engine.docker("exec", NAME, "ai-proxy", *words, check=False)

    def siblings(self) -> list[str]:
        return [name for name in self.engine.containers() if name != NAME]

    def remove(self) -> None:
        self.engine.docker("rm", "--force", NAME, check=False)


def sibling(**settings: Any) -> dict[str, Any]:
    """Return a service in a container of its own; its volume is a path of the host, as always with Docker."""
    return {
        "type": "llama-cpp-server",
        "image": IMAGE,
        "volumes": [f"{demo_model_path().parent}:/models:ro"],
        "args": ["-m", "/models/recite.gguf", "-c", "512"],
        "stop_grace": "3s",
        "docker": {"pull": "never"},
        **settings,
    }


@pytest.fixture(scope="module")
def proxy_image(docker_engine: DockerEngine) -> None:
    script = Path(__file__).parents[2] / "scripts" / "make_image"
    environment = {**os.environ, "DOCKER_HOST": docker_engine.host}
    subprocess.run([sys.executable, script, "--proxy", PROXY_IMAGE], env=environment, check=True)


@pytest.fixture
def inside(docker_engine: DockerEngine, proxy_image: None, tmp_path: Path) -> Iterator[Container]:
    container = Container(docker_engine, tmp_path)
    yield container
    container.remove()
    for name in container.siblings():
        docker_engine.docker("rm", "--force", name)
    docker_engine.docker("volume", "rm", "--force", *VOLUMES)


def test_a_request_from_outside_starts_a_sibling_and_is_answered(inside: Container) -> None:
    inside.configure(tiny=sibling())
    inside.run()

    answer = inside.ask(CHAT, chat())

    (upstream,) = inside.ask("/api/v1/service/tiny").json["upstreams"]
    assert answer.json["choices"][0]["message"]["content"] == DEMO_SENTENCE
    assert upstream == f"http://{inside.address_of('ai-proxy-tiny')}:8080"
    assert inside.engine.docker("port", "ai-proxy-tiny").stdout == ""


def test_it_runs_without_privileges_is_healthy_and_has_its_command_line(inside: Container) -> None:
    inside.configure(tiny=sibling())
    inside.run("--health-interval=1s")

    eventually(lambda: inside.facts["State"]["Health"]["Status"] == "healthy")
    started = inside.cli("start", "tiny")
    listed = inside.cli("--format", "json", "ps")
    user = inside.engine.docker("exec", NAME, "python3", "-c", "import os; print(os.getuid(), os.getgid())")

    assert user.stdout.split() == ["10001", "10001"]
    assert started.returncode == 0, started.stderr
    (service,) = json.loads(listed.stdout)["data"]
    assert (service["id"], service["state"]) == ("tiny", "ready")


def test_what_runs_is_adopted_by_the_proxy_that_comes_after(inside: Container) -> None:
    inside.configure(tiny=sibling())
    inside.run()
    inside.ask(CHAT, chat())
    ref = inside.ask("/api/v1/service/tiny").json["ref"]

    inside.engine.docker("restart", NAME)
    inside.serves()
    restarted = inside.ask("/api/v1/service/tiny").json["ref"]
    inside.engine.docker("kill", NAME)
    inside.engine.docker("start", NAME)
    inside.serves()
    after_kill = inside.ask("/api/v1/service/tiny").json["ref"]
    inside.remove()
    inside.run()
    replaced = inside.ask("/api/v1/service/tiny").json["ref"]
    answer = inside.ask(CHAT, chat())

    assert restarted == after_kill == replaced == ref
    assert answer.json["choices"][0]["message"]["content"] == DEMO_SENTENCE
    assert inside.siblings() == ["ai-proxy-tiny"]


def test_without_its_data_the_proxy_leaves_the_container_alone_and_says_whose_it_is(
    inside: Container,
) -> None:
    inside.configure(tiny=sibling())
    inside.run()
    inside.ask(CHAT, chat())
    inside.remove()
    inside.run(data=VOLUMES[1])

    refused = inside.ask(CHAT, chat())

    assert refused.headers["X-AI-Proxy-Error"] == "service_failed"
    assert "which is of another ai-proxy" in refused.json["detail"]
    assert inside.siblings() == ["ai-proxy-tiny"]


def test_its_end_keeps_or_stops_siblings_as_declared(inside: Container) -> None:
    inside.configure(kept=sibling(), ended=sibling(on_exit="stop"))
    inside.run()
    inside.ask("/service/kept/v1/chat/completions", chat())
    inside.ask("/service/ended/v1/chat/completions", chat())

    inside.engine.docker("stop", NAME)

    assert inside.siblings() == ["ai-proxy-kept"]
    assert inside.facts["State"]["ExitCode"] == 0


def test_a_volume_that_the_host_does_not_have_is_told(inside: Container) -> None:
    inside.configure(tiny=sibling(volumes=["/etc/ai-proxy/no-such-folder:/models:ro"]))
    inside.run()

    answer = inside.ask(CHAT, chat())

    assert answer.headers["X-AI-Proxy-Error"] == "service_failed"
    assert "/etc/ai-proxy/no-such-folder does not exist on the host" in answer.json["detail"]
