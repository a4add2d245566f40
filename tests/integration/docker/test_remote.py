"""An engine that is spoken to over TCP, with TLS and without."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from tests.integration.docker.certificates import make_certificates, tls_options
from tests.integration.docker.conftest import Open, backend, eventually, sleeper
from tests.integration.docker.test_containers import SERVES, answers
from tests.rigs.docker_engine import DockerEngine, free_port

from ai_proxy.core.errors import RuntimeFailureError
from ai_proxy.core.settings import DockerSettings
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.docker.runtime import DockerRuntime
from ai_proxy.testing.contracts import start


@dataclass(frozen=True, slots=True)
class Remote:
    """Where the engine listens as well."""

    url: str
    certificates: Path


@pytest.fixture(scope="module")
def remote(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder, docker_engine.address)
    url = f"tcp://{docker_engine.address}:{free_port()}"
    docker_engine.stop()
    docker_engine.start(*tls_options(folder, url))
    yield Remote(url, folder / "client")
    docker_engine.stop()
    docker_engine.start()


@pytest.fixture(autouse=True)
async def farewell(remote: Remote) -> AsyncIterator[None]:
    """TLS connections end with a word from both sides, and nobody waits for it; a test's event loop must."""
    yield
    port = urlsplit(remote.url).port
    own = psutil.Process()
    await eventually(
        lambda: None if port in {one.raddr.port for one in own.net_connections("tcp") if one.raddr} else True
    )


def published_on(engine: DockerEngine) -> str:
    facts: Any = engine.inspect("ai-proxy-backend")
    (binding,) = facts["NetworkSettings"]["Ports"]["8080/tcp"]
    return str(binding["HostIp"])


async def test_ports_are_published_and_reached_at_the_address_that_is_configured(
    engine: DockerEngine, remote: Remote, open_runtime: Open
) -> None:
    settings = DockerSettings(remote.url, remote.certificates, engine.address)
    runtime = open_runtime(settings=settings)
    handle = await start(runtime, backend(SERVES))
    assert handle.upstreams[0].host == published_on(engine) == engine.address
    assert await answers(handle)


async def test_what_is_not_configured_comes_from_the_environment(
    engine: DockerEngine, remote: Remote, open_runtime: Open
) -> None:
    environ = {
        "DOCKER_HOST": remote.url,
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(remote.certificates),
    }
    runtime = open_runtime(settings=DockerSettings(), environ=environ)
    handle = await start(runtime, backend(SERVES))
    assert published_on(engine) == "127.0.0.1"  # whatever its URL: this engine is on this very machine
    assert await answers(handle)


async def test_an_address_that_the_engine_does_not_have_is_told(remote: Remote, open_runtime: Open) -> None:
    runtime = open_runtime(settings=DockerSettings(remote.url, remote.certificates, "192.0.2.1"))
    with pytest.raises(
        RuntimeFailureError, match=r"published on 192\.0\.2\.1, .* set server\.docker\.address"
    ):
        await start(runtime, sleeper())


async def refusal(settings: DockerSettings) -> str:
    """Return what is said about a start that cannot be."""
    runtime = DockerRuntime(settings, "tests", "test", Background())
    try:
        with pytest.raises(RuntimeFailureError) as caught:
            await start(runtime, sleeper())
        return caught.value.detail
    finally:
        await runtime.aclose()


async def test_an_address_that_cannot_be_resolved_is_an_error(engine: DockerEngine) -> None:
    said = await refusal(DockerSettings(engine.host, address="no-such-machine.invalid"))
    assert said.startswith("the name no-such-machine.invalid cannot be resolved")


async def test_an_engine_that_wants_tls_and_does_not_get_it(remote: Remote) -> None:
    said = await refusal(DockerSettings(remote.url, None))
    assert said.startswith(f"Docker at {remote.url} wants TLS: set server.docker.certificates")


async def test_an_engine_of_another_authority_is_not_trusted(remote: Remote, tmp_path: Path) -> None:
    make_certificates(tmp_path, "127.0.0.1")
    said = await refusal(DockerSettings(remote.url, tmp_path / "client"))
    assert "do not trust each other (unable to get local issuer certificate)" in said


async def test_an_engine_that_does_not_trust_us(remote: Remote, tmp_path: Path) -> None:
    make_certificates(tmp_path, "127.0.0.1")
    (tmp_path / "client/ca.pem").write_bytes((remote.certificates / "ca.pem").read_bytes())
    said = await refusal(DockerSettings(remote.url, tmp_path / "client"))
    assert "do not trust each other" in said


async def test_certificates_that_are_not_there(remote: Remote, tmp_path: Path) -> None:
    said = await refusal(DockerSettings(remote.url, tmp_path))
    assert said.startswith(f"the certificates for Docker in {tmp_path} cannot be used (No such file")


async def test_without_tls(engine: DockerEngine, remote: Remote, open_runtime: Open) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    engine.stop()
    engine.start(f"--host={url}", "--tls=false")  # until the end of the module
    handle = await start(open_runtime(settings=DockerSettings(url)), backend(SERVES))
    assert await answers(handle)
