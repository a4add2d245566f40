"""How far a pull is reaches the people who wait for it; the registry is one that the test serves itself."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.conftest import PROGRAM, Proxy, eventually
from tests.integration.docker.test_pull import GIVEN_UP, Registry, serve
from tests.rigs.docker_engine import DockerEngine

HALFWAY = "pulling image: 1 of 2 layers, "


@pytest.fixture
def docker_proxy(proxy: Proxy, docker_engine: DockerEngine) -> Iterator[Proxy]:
    proxy.environment["DOCKER_HOST"] = docker_engine.host
    yield proxy
    proxy.clean_up()
    docker_engine.docker("rm", "--force", "ai-proxy-big", check=False)


def start(proxy: Proxy, go_on: Callable[[], object]) -> tuple[dict[str, Any], str, str]:
    """Start the service by the command line; return the API's view and `ps` halfway, and what was printed."""
    environment = {**os.environ, **proxy.environment, "AI_PROXY_RUN_DIR": str(proxy.run_dir)}
    with subprocess.Popen(
        [PROGRAM, "start", "big"], stderr=subprocess.PIPE, text=True, env=environment
    ) as command:
        assert command.stderr is not None
        told = next(line for line in command.stderr if HALFWAY in line)
        view, listed = proxy.service("big"), proxy.cli("ps").stdout
        go_on()
        return view, listed, told + command.stderr.read()


async def test_the_layers_of_a_pull_are_told_by_the_api_and_the_command_line(
    docker_proxy: Proxy, docker_engine: DockerEngine
) -> None:
    registry = Registry()
    loop = asyncio.get_running_loop()
    async with serve(registry):
        image = f"{registry.image}:1"  # it has no program, so that the start fails in the end
        docker_proxy.configure(big={"type": "generic", "image": image, "port": 8080})
        await asyncio.to_thread(docker_proxy.serve)
        view, listed, printed = await asyncio.to_thread(
            start, docker_proxy, lambda: loop.call_soon_threadsafe(registry.go_on.set)
        )

    docker_engine.docker("rmi", "--force", image, check=False)
    assert view["state"] == "starting"
    assert view["reason"].startswith(HALFWAY)
    assert HALFWAY in listed
    assert printed.startswith(f"big is starting: {HALFWAY}")
    assert f"pulled image {image}" in printed


async def test_a_stop_by_hand_gives_up_the_pull(docker_proxy: Proxy, docker_engine: DockerEngine) -> None:
    registry = Registry()
    given_up = docker_engine.log.read_text().count(GIVEN_UP)
    async with serve(registry):
        image = f"{registry.image}:1"
        docker_proxy.configure(big={"type": "generic", "image": image, "port": 8080})
        await asyncio.to_thread(docker_proxy.serve)
        await asyncio.to_thread(docker_proxy.ask, "/api/v1/service/big/start", method="POST")
        await asyncio.to_thread(eventually, lambda: docker_proxy.service("big")["reason"].startswith(HALFWAY))
        stopped = await asyncio.to_thread(
            docker_proxy.ask, "/api/v1/service/big/stop?wait=5", method="POST", wait=5.0
        )
        view = await asyncio.to_thread(docker_proxy.service, "big")
        await asyncio.to_thread(eventually, lambda: docker_engine.log.read_text().count(GIVEN_UP) > given_up)
        logged = await asyncio.to_thread(docker_proxy.cli, "logs", "big")

    assert stopped.status == 200
    assert (view["state"], view["held"]) == ("stopped", True)
    assert f"gave up pulling image {image}" in logged.stdout
