"""Docker services through the whole program: its API, its command line, a real engine, the real llama.cpp."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import IMAGE
from tests.e2e.conftest import Proxy, chat, eventually
from tests.rigs.docker_engine import DockerEngine

from ai_proxy.data import DEMO_SENTENCE, demo_model_path

CHAT = "/service/tiny/v1/chat/completions"


def container(*args: str, **settings: Any) -> dict[str, Any]:
    """Return a service with llama.cpp and the tiny model in a container."""
    return {
        "type": "llama-cpp-server",
        "image": IMAGE,
        "volumes": [f"{demo_model_path().parent}:/models:ro"],
        "args": ["-m", "/models/recite.gguf", "-c", "512", *args],
        "stop_grace": "3s",
        "docker": {"pull": "never"},
        **settings,
    }


@pytest.fixture
def docker_proxy(proxy: Proxy, docker_engine: DockerEngine) -> Iterator[Proxy]:
    proxy.environment["DOCKER_HOST"] = docker_engine.host
    yield proxy
    proxy.clean_up()
    if docker_engine.docker("version", check=False).returncode:
        docker_engine.start()
    for name in containers(docker_engine):
        docker_engine.docker("rm", "--force", name)


@pytest.fixture(scope="module")
def lasting_proxy(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory(prefix="aip-") as run_dir:
        proxy = Proxy(tmp_path_factory.mktemp("proxy"), Path(run_dir))
        proxy.environment["DOCKER_HOST"] = docker_engine.host
        proxy.configure()
        proxy.serve()
        yield proxy
        proxy.clean_up()


@pytest.fixture
def running(lasting_proxy: Proxy, docker_engine: DockerEngine) -> Iterator[Proxy]:
    """A proxy without services, for tests that do not end it."""
    yield lasting_proxy
    declare(lasting_proxy)
    eventually(lambda: not containers(docker_engine))


def declare(proxy: Proxy, **services: dict[str, Any]) -> None:
    """Let a proxy that runs have these services only."""
    proxy.configure(**services)
    assert proxy.ask("/api/v1/config/reload", method="POST").status == 200


def containers(engine: DockerEngine) -> list[str]:
    listed = engine.docker("ps", "--all", "--quiet", "--no-trunc")
    return listed.stdout.split()


def test_the_first_request_starts_the_container_and_is_answered(
    running: Proxy, docker_engine: DockerEngine
) -> None:
    declare(running, tiny=container())

    answer = running.ask(CHAT, chat())

    shown = running.ask("/api/v1/container/tiny").json
    assert answer.json["choices"][0]["message"]["content"] == DEMO_SENTENCE
    assert shown["status"] == "running"
    assert containers(docker_engine) == [shown["ref"]]
    stats = eventually(lambda: running.ask("/api/v1/container/tiny").json["stats"])
    assert stats["memory"] > 1_000_000
    assert "MB" in running.cli("ps").stdout


def test_starting_and_stopping_keep_to_the_letter_of_the_api(running: Proxy) -> None:
    declare(running, tiny=container())

    before = running.ask("/api/v1/container/tiny").json
    started = running.ask("/api/v1/service/tiny/start", method="POST")
    eventually(lambda: running.service("tiny")["state"] == "ready")
    again = running.ask("/api/v1/service/tiny/start", method="POST")
    stopped = running.ask("/api/v1/service/tiny/stop", method="POST")
    stopped_again = running.ask("/api/v1/service/tiny/stop", method="POST")
    after = running.ask("/api/v1/container/tiny").json
    unknown = running.ask("/api/v1/service/nope/start", method="POST")

    assert before["status"] == "not_found"
    assert (started.status, started.json) == (202, {"message": "Container 'tiny' starting"})
    assert again.status == 200
    assert (stopped.status, stopped.json) == (200, {"message": "Container 'tiny' stopped"})
    assert (stopped_again.status, stopped_again.json) == (200, {"message": "Container 'tiny' stopped"})
    assert after["status"] == "exited"
    assert unknown.status == 404


def test_a_container_goes_on_without_the_proxy_and_is_adopted(
    docker_proxy: Proxy, docker_engine: DockerEngine
) -> None:
    docker_proxy.configure(tiny=container())
    docker_proxy.serve()
    docker_proxy.ask(CHAT, chat())
    ref = docker_proxy.service("tiny")["ref"]

    docker_proxy.end()
    kept = containers(docker_engine)
    docker_proxy.serve()
    docker_proxy.ask(CHAT, chat())
    adopted = docker_proxy.service("tiny")["ref"]
    docker_proxy.kill()
    docker_proxy.serve()
    docker_proxy.ask(CHAT, chat())

    assert kept == [ref]
    assert adopted == ref
    assert docker_proxy.service("tiny")["ref"] == ref
    assert docker_proxy.cli("stop", "tiny").returncode == 0
    assert containers(docker_engine) == []


def test_on_exit_stop_ends_it_with_the_proxy(docker_proxy: Proxy, docker_engine: DockerEngine) -> None:
    docker_proxy.configure(tiny=container(on_exit="stop"))
    docker_proxy.serve()
    docker_proxy.ask(CHAT, chat())

    docker_proxy.end()

    assert containers(docker_engine) == []


def test_a_container_whose_declaration_changed_while_the_proxy_was_away_is_swept(
    docker_proxy: Proxy, docker_engine: DockerEngine
) -> None:
    docker_proxy.configure(tiny=container(), other=container())
    docker_proxy.serve()
    docker_proxy.ask(CHAT, chat())
    docker_proxy.ask("/service/other/v1/chat/completions", chat())

    docker_proxy.kill()
    docker_proxy.configure(tiny=container("-np", "2"))
    docker_proxy.serve()

    eventually(lambda: not containers(docker_engine))
    assert docker_proxy.ask(CHAT, chat()).status == 200


def test_a_reload_replaces_what_changed_and_keeps_the_rest_running(
    running: Proxy, docker_engine: DockerEngine
) -> None:
    declare(running, tiny=container(), kept=container())
    running.ask(CHAT, chat())
    running.ask("/service/kept/v1/chat/completions", chat())
    before = {name: running.service(name)["ref"] for name in ("tiny", "kept")}

    running.configure(tiny=container("-np", "2"), kept=container())
    reloaded = running.cli("config", "reload")
    eventually(lambda: running.service("tiny")["ref"] not in (None, before["tiny"]))
    answer = running.ask(CHAT, chat())

    assert reloaded.returncode == 0
    assert answer.status == 200
    assert running.service("kept")["ref"] == before["kept"]
    assert len(containers(docker_engine)) == 2


def test_a_replacement_that_fails_is_told_and_tried_again_by_the_next_request(running: Proxy) -> None:
    declare(running, tiny=container())
    running.ask(CHAT, chat())

    declare(running, tiny=container(image="no-such-image"))
    eventually(lambda: running.service("tiny")["state"] == "failed")
    refused = running.ask(CHAT, chat())
    declare(running, tiny=container())
    answer = eventually(lambda: ok if (ok := running.ask(CHAT, chat())).status == 200 else None)

    assert refused.headers["X-AI-Proxy-Error"] == "service_failed"
    assert "no-such-image" in refused.json["detail"]
    assert answer.status == 200


def test_a_crash_is_told_with_its_exit_code(running: Proxy, docker_engine: DockerEngine) -> None:
    declare(running, tiny=container())
    running.ask(CHAT, chat())

    docker_engine.docker("kill", containers(docker_engine)[0])
    eventually(lambda: running.service("tiny")["state"] == "failed")
    view = running.service("tiny")
    answer = eventually(lambda: ok if (ok := running.ask(CHAT, chat())).status == 200 else None)

    assert view["exit_code"] == 137
    assert view["log_tail"]
    assert answer.status == 200


def test_an_image_that_exits_at_once_is_told_with_its_last_words(running: Proxy) -> None:
    declare(running, tiny=container(args=["--no-such-flag"]))

    answer = running.ask(CHAT, chat())

    assert answer.status == 503
    assert "--no-such-flag" in " ".join(answer.json["log_tail"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image": "no-such-image"}, "no-such-image"),
        ({"volumes": ["/no/such/folder:/models"]}, "/no/such/folder"),
        ({"gpus": "all"}, "gpu"),
    ],
    ids=["missing image", "missing volume", "no GPU"],
)
def test_what_cannot_be_started_says_what_to_do(running: Proxy, settings: dict[str, Any], said: str) -> None:
    declare(running, tiny=container(**settings))

    answer = running.ask(CHAT, chat())
    command = running.cli("start", "tiny")

    assert answer.headers["X-AI-Proxy-Error"] == "service_failed"
    assert said in answer.json["detail"].lower()
    assert command.returncode == 1
    assert said in command.stderr.lower()
    assert "Traceback" not in command.stderr


def test_without_the_engine_management_says_so_and_requests_go_on(
    running: Proxy, docker_engine: DockerEngine
) -> None:
    declare(running, tiny=container(), other=container())
    running.ask(CHAT, chat())

    with docker_engine.frozen():
        served = running.ask(CHAT, chat())
        began = time.monotonic()
        start = running.ask("/api/v1/service/other/start", method="POST")
        start_waited = running.ask("/api/v1/service/other/start?wait=10", method="POST", wait=15)
        took = time.monotonic() - began
        shown = running.ask("/api/v1/container/tiny")
    answer = eventually(
        lambda: ok if (ok := running.ask("/service/other/v1/models")).status == 200 else None, 30
    )

    assert served.status == 200
    assert start.status in (202, 503)
    assert start_waited.status == 503
    assert start_waited.headers["X-AI-Proxy-Error"] == "runtime_unavailable"
    assert took < 12
    assert shown.json["status"] == "running"
    assert answer.status == 200


def test_an_engine_that_is_away_at_boot_is_told_and_its_return_is_noticed(
    docker_proxy: Proxy, docker_engine: DockerEngine
) -> None:
    docker_proxy.configure(tiny=container())
    docker_engine.kill()
    docker_proxy.serve()

    refused = docker_proxy.ask(CHAT, chat())
    docker_engine.start()
    answer = eventually(lambda: ok if (ok := docker_proxy.ask(CHAT, chat())).status == 200 else None, 30)

    assert refused.status == 503
    assert refused.headers["X-AI-Proxy-Error"] == "runtime_unavailable"
    assert answer.json["choices"][0]["message"]["content"] == DEMO_SENTENCE


def test_two_proxies_on_one_engine_do_not_fight(
    running: Proxy, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    second = Proxy(tmp_path / "second", running.run_dir / "2")
    second.folder.mkdir()
    second.environment["DOCKER_HOST"] = docker_engine.host
    declare(running, tiny=container())
    second.configure(other=container(on_exit="stop"), tiny=container())
    running.ask(CHAT, chat())
    try:
        second.serve()
        second.ask("/service/other/v1/models")
        refused = second.ask(CHAT, chat())

        assert refused.headers["X-AI-Proxy-Error"] == "service_failed"
        assert "ai-proxy-tiny" in refused.json["detail"]
        assert running.ask(CHAT, chat()).status == 200
        assert len(containers(docker_engine)) == 2
        second.end()
    finally:
        second.clean_up()


def test_a_fixed_host_port_that_is_taken_is_told(running: Proxy) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        declare(running, tiny=container(host_port=other.getsockname()[1]))

        answer = running.ask(CHAT, chat())

    assert answer.headers["X-AI-Proxy-Error"] == "service_failed"
    assert "port" in answer.json["detail"]
