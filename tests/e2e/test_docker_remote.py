"""An engine that `config.yaml` names and that is not on this machine, as far as the proxy can tell."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import PROGRAM, Proxy, chat, eventually
from tests.e2e.test_docker import CHAT, container
from tests.integration.docker.certificates import make_certificates, tls_options
from tests.rigs.docker_engine import DockerEngine, free_port

from ai_proxy.data import DEMO_SENTENCE

ELSEWHERE = ("unshare", "--uts", "--", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh")
"""Runs a program on a machine of another name, which is how engines tell where they are."""


@pytest.fixture
def url(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[str]:
    make_certificates(tmp_path / "tls", docker_engine.address)
    url = f"tcp://{docker_engine.address}:{free_port()}"
    docker_engine.stop()
    docker_engine.start(*tls_options(tmp_path / "tls", url))
    yield url
    if names := docker_engine.containers():
        docker_engine.docker("rm", "--force", *names)
    docker_engine.stop()
    docker_engine.start()


def test_services_of_a_remote_engine_are_reached_at_its_address(
    proxy: Proxy, docker_engine: DockerEngine, url: str
) -> None:
    docker = {"host": url, "certificates": "./tls/client"}
    server = {"port": proxy.port, "docker": docker}
    proxy.config.write_text(json.dumps({"server": server, "services": {"tiny": container()}}))
    command = [*ELSEWHERE, str(PROGRAM), "serve", "--config", str(proxy.config)]
    command += ["--run-dir", str(proxy.run_dir)]
    with proxy.log.open("ab") as log:
        environment = {**os.environ, **proxy.environment}
        proxy.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    eventually(proxy.answers)
    answer = proxy.ask(CHAT, chat())

    (upstream,) = proxy.service("tiny")["upstreams"]
    port = docker_engine.docker("port", "ai-proxy-tiny", "8080/tcp").stdout.strip()
    assert answer.json["choices"][0]["message"]["content"] == DEMO_SENTENCE
    assert upstream == f"http://{port}"
    assert port.startswith(f"{docker_engine.address}:")
