"""What can be wrong, and what is said about it."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.docker.conftest import Open, backend, log_line, sleeper
from tests.rigs.docker_engine import DockerEngine

from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.service import Mount
from ai_proxy.core.settings import DockerSettings
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.docker.runtime import DockerRuntime
from ai_proxy.testing.contracts import exit_of, start


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


async def refusal(runtime: DockerRuntime, **launch: Any) -> str:
    """Return what is said about a start that cannot be; nothing must be left of it."""
    with pytest.raises(RuntimeFailureError) as caught:
        await start(runtime, sleeper(**launch))
    assert list(await runtime.handles()) == []
    return caught.value.detail


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        (
            {"image": "no/such:1"},
            "image no/such:1 is not on this machine and 'pull' is 'never': run 'docker pull",
        ),
        ({"image": "No Such"}, "'No Such' is not the name of an image: correct 'image'"),
        ({"gpus": ("all",)}, "the service needs GPUs, and Docker has none to give: install the driver"),
        ({"gpus": ("device=0",)}, "or set gpus: none"),
        ({"networks": ("nowhere",)}, "Docker has no network nowhere: run 'docker network create nowhere'"),
        ({"networks": ("bridge", "nowhere")}, "Docker has no network nowhere"),
        ({"user": "nobody-here"}, "has no user nobody-here: correct 'user', or use numbers"),
        ({"memory_mb": 1}, "Docker refused: Minimum memory limit allowed is 6MB"),
    ],
)
async def test_a_declaration_docker_cannot_carry_out(
    runtime: DockerRuntime, launch: dict[str, Any], said: str
) -> None:
    assert said in await refusal(runtime, **launch)


async def test_a_registry_that_cannot_be_reached(runtime: DockerRuntime) -> None:
    image = "127.0.0.1:1/no/such:1"
    said = await refusal(runtime, image=image, pull="missing")
    assert f"the registry of image {image} cannot be reached" in said


async def test_a_host_port_that_is_taken(runtime: DockerRuntime) -> None:
    with taken_port() as port:
        said = await refusal(runtime, host_port=port)
    assert said == f"port {port} is taken: end what listens there, or choose another host_port"


async def test_a_volume_that_is_missing_is_not_created(runtime: DockerRuntime, tmp_path: Path) -> None:
    missing = tmp_path / "models"
    said = await refusal(runtime, mounts=(Mount(str(missing), "/models"),))
    assert said == f"{missing} does not exist on the host: create it, or correct 'volumes'"
    assert not missing.exists()


async def test_a_name_that_a_stranger_holds(engine: DockerEngine, runtime: DockerRuntime) -> None:
    engine.docker("create", "--name", "ai-proxy-backend", "ai-proxy/test")
    said = await refusal(runtime)
    assert "the name ai-proxy-backend is taken by container" in said
    assert "which is not of an ai-proxy: rename it" in said
    assert engine.containers() == ["ai-proxy-backend"]
    engine.docker("rm", "ai-proxy-backend")


async def test_a_name_that_another_proxy_holds(open_runtime: Open) -> None:
    handle = await start(open_runtime("yours"), sleeper())
    assert "which is of another ai-proxy (yours)" in await refusal(open_runtime("mine"))
    assert list(await open_runtime("yours").handles()) == [handle]


async def test_an_image_that_exits_at_once_tells_its_code_and_its_last_words(runtime: DockerRuntime) -> None:
    handle = await start(runtime, backend("import sys; sys.exit('no model here')"))
    assert (await exit_of(runtime, handle)).detail == "exit code 1"
    await log_line(runtime, "backend", "no model here")


async def test_a_program_that_is_not_in_the_image(runtime: DockerRuntime) -> None:
    handle = await start(runtime, sleeper(command=("llama-server",)))
    assert "a program that is not in the image" in (await exit_of(runtime, handle)).detail


async def test_a_container_that_ignores_sigterm_is_ended_when_its_grace_is_over(
    runtime: DockerRuntime,
) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('no'); time.sleep(600)"
    handle = await start(runtime, backend(stubborn))
    await log_line(runtime, "backend", "no")
    await runtime.stop(handle, 0.5)
    assert (await exit_of(runtime, handle)).detail == "killed by SIGKILL (exit code 137)"


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be a user who may do nothing."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_socket_this_user_may_not_use(runtime: DockerRuntime) -> None:
    with nobody(), pytest.raises(RuntimeUnavailableError) as caught:
        await start(runtime, sleeper())
    assert caught.value.detail.endswith("join the group 'docker', or use rootless Docker")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("unix:///no/such.sock", "there is no such socket): start it, or correct its URL"),
        ("tcp://127.0.0.1:1", "Docker at tcp://127.0.0.1:1 is away"),
        ("bogus", "DOCKER_HOST=bogus cannot be used"),
        ("bogus://x", "it must be like unix:///run/docker.sock, tcp://host:2376 or ssh://user@host"),
    ],
)
async def test_a_docker_host_where_no_engine_is(host: str, said: str) -> None:
    runtime = DockerRuntime(DockerSettings(host), "tests", "test", Background())
    for ask in (runtime.handles, lambda: start(runtime, sleeper())):
        with pytest.raises(RuntimeUnavailableError) as caught:
            await ask()
        assert said in caught.value.detail
    await runtime.aclose()
