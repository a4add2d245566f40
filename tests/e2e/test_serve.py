"""Serving: configuration, reload, shutdown, and what goes wrong at start."""

import http.client
import json
import signal
import socket
from typing import Any

import pytest
from tests.e2e.conftest import Proxy, chat, eventually, fake

from ai_proxy.testing.fake_engine import Behaviour


def test_without_a_configuration_it_serves_its_own_pages(proxy: Proxy) -> None:
    proxy.config.write_text("")

    proxy.serve("--port", str(proxy.port))

    assert proxy.ask("/health").status == 200
    assert proxy.ask("/docs").status == 200
    assert proxy.ask("/openapi.json").json["info"]["title"] == "ai-proxy"
    assert b"ai_proxy_requests_total" in proxy.ask("/metrics").body


def test_a_wrong_configuration_is_told_with_line_and_column_and_nothing_is_served(proxy: Proxy) -> None:
    proxy.config.write_text("services:\n  a:\n    typ: generic\n    command: [x, '${port}']\n")

    ended = proxy.cli("serve", "--config", str(proxy.config))

    assert ended.returncode == 1
    assert f"{proxy.config}:3:5: services.a.typ: " in ended.stderr
    assert "did you mean 'type'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_told(proxy: Proxy) -> None:
    proxy.configure()
    with socket.socket() as other:
        other.bind(("127.0.0.1", proxy.port))
        other.listen()

        ended = proxy.cli("serve", "--config", str(proxy.config))

    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{proxy.port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_signal_while_a_docker_engine_holds_up_the_start_leaves_nothing(proxy: Proxy) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(proxy.run_dir / "docker.sock"))
        silent.listen()
        proxy.environment["DOCKER_HOST"] = f"unix://{proxy.run_dir}/docker.sock"
        proxy.configure(
            quick=fake(Behaviour.OK, start="always"), slow={"type": "generic", "image": "none", "port": 80}
        )
        proxy.launch()
        eventually(proxy.backends)

        code = proxy.end()

    assert (code, proxy.backends()) == (0, [])


def test_a_second_proxy_on_the_same_port_is_told_who_has_it(proxy: Proxy) -> None:
    proxy.configure()
    proxy.serve()
    assert proxy.process is not None

    ended = proxy.cli("serve", "--config", str(proxy.config))

    assert ended.returncode == 1
    assert f"pid {proxy.process.pid}" in ended.stderr


def test_a_reload_adds_removes_and_leaves_the_rest_alone(proxy: Proxy) -> None:
    proxy.configure(kept=fake(Behaviour.OK), gone=fake(Behaviour.OK))
    proxy.serve()
    proxy.ask("/service/kept/v1/chat/completions", chat())
    proxy.ask("/service/gone/v1/chat/completions", chat())
    ref = proxy.service("kept")["ref"]

    proxy.configure(kept=fake(Behaviour.OK), new=fake(Behaviour.OK))
    report = proxy.ask("/api/v1/config/reload", method="POST").json

    assert (report["added"], report["removed"], report["unchanged"]) == (["new"], ["gone"], ["kept"])
    assert proxy.service("kept")["ref"] == ref
    assert proxy.backends() == [int(ref)]
    assert proxy.ask("/service/gone/v1/models").headers["X-AI-Proxy-Error"] == "unknown_service"
    assert proxy.ask("/service/new/v1/chat/completions", chat()).status == 200


@pytest.mark.threat("an operator's mistake", "a partially applied configuration")
def test_a_bad_reload_changes_nothing(proxy: Proxy) -> None:
    proxy.configure(kept=fake(Behaviour.OK))
    proxy.serve()

    proxy.config.write_text("services: {kept: {type: nonsense}}")
    refused = proxy.ask("/api/v1/config/reload", method="POST")
    command = proxy.cli("config", "reload")

    assert refused.status == 422
    assert "nonsense" in refused.json["detail"]
    assert command.returncode == 1
    assert proxy.service("kept")["state"] == "stopped"


def test_sighup_reloads(proxy: Proxy) -> None:
    proxy.configure()
    proxy.serve()
    assert proxy.process is not None

    proxy.configure(new=fake(Behaviour.OK))
    proxy.process.send_signal(signal.SIGHUP)

    eventually(lambda: proxy.ask("/api/v1/service/new").status == 200)


def test_a_watched_file_is_reloaded_when_it_changes(proxy: Proxy) -> None:
    settings: dict[str, Any] = {"server": {"port": proxy.port, "watch": True}, "services": {}}
    proxy.config.write_text(json.dumps(settings))
    proxy.serve()

    settings["services"] = {"new": fake(Behaviour.OK)}
    proxy.config.write_text(json.dumps(settings))

    eventually(lambda: proxy.ask("/api/v1/service/new").status == 200)


def test_a_stream_in_flight_is_finished_before_the_end(proxy: Proxy) -> None:
    proxy.configure(slow=fake(Behaviour.OK, "--words", "10", "--delay", "0.1"))
    proxy.serve()
    assert proxy.process is not None
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    body = json.dumps(chat(stream=True))
    path = "/service/slow/v1/chat/completions"
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.readline()

    proxy.process.send_signal(signal.SIGTERM)
    rest = response.read()
    code = proxy.process.wait(timeout=60)

    connection.close()
    assert rest.rstrip().endswith(b"data: [DONE]")
    assert code == 0
    assert proxy.backends() == []
