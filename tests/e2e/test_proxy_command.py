"""Proxies in the background: `ai-proxy proxy start`, `stop` and `status`."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.e2e.conftest import PROGRAM, Proxy, eventually, fake, free_port

from ai_proxy.testing.fake_engine import Behaviour

LARGE = 100_000_000
"""Bytes of a response that is in flight until its client reads: no buffers on the way hold so many."""


@dataclass(frozen=True)
class Background:
    """The commands, and the proxies that they start."""

    proxy: Proxy

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.proxy.cli("proxy", *words)

    def json(self, *words: str) -> Any:
        """Return the result of a command that has to work."""
        ran = self(*words, "--format", "json")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)["data"]

    def start(self, *words: str) -> Any:
        return self.json("start", *words)

    @property
    def states(self) -> dict[int, str]:
        """How the proxies stand, by their ports."""
        return {one["port"]: one["state"] for one in self.json("status")}

    def clean_up(self) -> None:
        """End what this test's proxies have left, whether or not they have a handle."""
        for process in psutil.process_iter():
            if str(self.proxy.folder) in self._data_folder(process):
                process.kill()

    @staticmethod
    def _data_folder(process: psutil.Process) -> str:
        try:
            return process.environ().get("AI_PROXY_DATA_DIR", "")
        except psutil.Error:
            return ""


@pytest.fixture
def background(proxy: Proxy) -> Iterator[Background]:
    proxy.configure()
    commands = Background(proxy)
    yield commands
    commands.clean_up()


def test_a_proxy_runs_from_start_to_stop_and_the_status_says_so(background: Background) -> None:
    proxy = background.proxy

    before = background.json("status")
    started = background.start()
    (during,) = background.json("status")
    answer = proxy.ask("/health")
    (stopped,) = background.json("stop")
    after = background.json("status")

    assert before == after == []
    assert answer.status == 200
    assert during["state"] == "running"
    assert (during["id"], during["pid"], during["port"]) == (started["id"], started["pid"], proxy.port)
    assert (during["mode"], during["endpoints"]) == ("local-http", [f"http://127.0.0.1:{proxy.port}"])
    assert 0 < during["uptime"] < 60
    assert (stopped["id"], stopped["outcome"]) == (started["id"], "stopped")
    assert not psutil.pid_exists(started["pid"]) or _is_zombie(started["pid"])


def _is_zombie(pid: int) -> bool:
    """Tell whether only the system remembers a process: a container's first process may not reap it."""
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_people_are_told_where_it_is_and_how_to_stop_it(background: Background) -> None:
    port = background.proxy.port

    started = background("start")
    status = background("status")
    stopped = background("stop", "--port", str(port))
    nothing = background("stop")

    assert f"http://127.0.0.1:{port}" in started.stdout
    assert f"ai-proxy proxy stop --port {port}" in started.stdout
    assert f"http://127.0.0.1:{port}" in status.stdout
    assert f"on port {port} has stopped" in stopped.stdout
    assert (nothing.returncode, nothing.stdout) == (0, "no proxy is running\n")


def test_it_has_a_session_of_its_own_and_a_log_for_its_owner(background: Background) -> None:
    started = background.start()

    log = Path(started["log"])
    assert os.getsid(started["pid"]) == started["pid"]
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.read_text().count("serving 0 services") == 1


def test_a_proxy_that_was_killed_is_dead_once(background: Background) -> None:
    started = background.start()

    os.kill(started["pid"], signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(started["pid"]) or _is_zombie(started["pid"]))
    first, second = background.states, background.states

    assert first == {background.proxy.port: "dead"}
    assert second == {}


def test_a_proxy_that_hangs_does_not_answer_and_is_killed(background: Background) -> None:
    started = background.start()
    config = {"server": {"port": background.proxy.port, "limits": {"shutdown_timeout": "0s"}}}
    background.proxy.config.write_text(json.dumps(config))

    os.kill(started["pid"], signal.SIGSTOP)
    hanging = background.states
    (stopped,) = background.json("stop")

    assert hanging == {background.proxy.port: "not_answering"}
    assert stopped["outcome"] == "killed"
    assert background.states == {}


def test_one_whose_configuration_was_broken_meanwhile_is_shown_and_stopped(background: Background) -> None:
    background.start()
    background.proxy.config.write_text("services: [")

    status = background("status")
    stopped = background("stop")

    assert (status.returncode, "running" in status.stdout) == (0, True)
    assert "warning: the configuration has errors" in status.stderr
    assert (stopped.returncode, "has stopped" in stopped.stdout) == (0, True)


def test_one_is_given_its_own_time_to_end_whatever_configuration_the_command_finds(
    background: Background, tmp_path: Path
) -> None:
    proxy = background.proxy
    slow = {"server": {"port": proxy.port, "limits": {"shutdown_timeout": "100s"}}}
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(slow))
    background.start("--config", str(other))

    (before,) = background.json("stop")
    background.start("--config", str(other))
    other.write_text(json.dumps({**slow, "services": {"a": fake(Behaviour.OK, stop_grace="50s")}}))
    reloaded = proxy.cli("config", "reload")

    assert before["limit"] == 105.0
    assert reloaded.returncode == 0, reloaded.stderr
    assert eventually(lambda: background.json("stop"))[0]["limit"] == 155.0


def test_several_run_at_once_and_are_stopped_one_by_one_or_together(background: Background) -> None:
    ports = [free_port(), free_port()]
    ids = [background.start("--port", str(port))["id"] for port in ports]

    states = background.states
    unclear = background("stop")
    by_id = background.json("stop", "--id", ids[0])
    the_rest = background.json("stop", "--all")

    assert states == dict.fromkeys(ports, "running")
    assert unclear.returncode == 1
    assert "choose one with --port or --id" in unclear.stderr
    assert [one["port"] for one in (*by_id, *the_rest)] == ports


def test_a_proxy_in_the_foreground_has_a_handle_too(background: Background) -> None:
    background.proxy.serve()

    running = background.states
    background.json("stop")

    assert running == {background.proxy.port: "running"}
    assert background.proxy.process is not None
    assert background.proxy.process.wait(timeout=10) == 0


def test_no_daemon_serves_in_the_foreground(background: Background) -> None:
    proxy = background.proxy
    with proxy.log.open("ab") as log:
        proxy.process = subprocess.Popen(
            [PROGRAM, "proxy", "start", "--no-daemon", "--config", proxy.config, "--run-dir", proxy.run_dir],
            env={**os.environ, **proxy.environment},
            stderr=log,
        )

    eventually(lambda: not _refused(proxy.port))
    found = eventually(lambda: background.json("status"))

    assert [(one["state"], one["pid"]) for one in found] == [("running", proxy.process.pid)]
    assert proxy.end() == 0


def test_a_taken_port_is_told_and_nothing_is_left(background: Background) -> None:
    port = background.proxy.port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()

        ended = background("start")

    assert ended.returncode == 1
    assert "the proxy ended before it answered, with exit code 1" in ended.stderr
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert background.states == {}


def test_a_second_one_on_the_same_port_is_told_who_has_it(background: Background) -> None:
    first = background.start()

    ended = background("start")

    assert ended.returncode == 1
    assert f"pid {first['pid']}" in ended.stderr
    assert background.states == {background.proxy.port: "running"}


def test_only_what_this_start_has_written_is_told(background: Background) -> None:
    background.start()
    background.json("stop")
    with socket.socket() as other:
        other.bind(("127.0.0.1", background.proxy.port))
        other.listen()

        ended = background("start")

    assert "serving" not in ended.stderr


def test_a_wrong_configuration_is_told_by_start_itself(background: Background) -> None:
    background.proxy.config.write_text("services:\n  a:\n    typ: generic\n    command: [x, '${port}']\n")

    ended = background("start", "--config", str(background.proxy.config))

    assert ended.returncode == 1
    assert f"{background.proxy.config}:3:5: services.a.typ: " in ended.stderr
    assert not (background.proxy.folder / "data" / "logs").exists()


def test_one_that_does_not_answer_in_time_is_ended(background: Background) -> None:
    ended = background("start", "--timeout", "0.1")

    assert ended.returncode == 1
    assert "did not answer within 0.1 s" in ended.stderr
    assert background.states == {}


def test_a_response_in_flight_is_whole_and_nobody_new_is_let_in(background: Background) -> None:
    proxy = background.proxy
    proxy.configure(large=fake(Behaviour.OK))
    background.start()
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    connection.request("GET", f"/service/large/bytes/{LARGE}")
    response = connection.getresponse()

    stop = subprocess.Popen(
        [PROGRAM, "proxy", "stop"], env={**os.environ, **proxy.environment}, cwd=proxy.folder
    )
    eventually(lambda: _refused(proxy.port))
    while_draining = background.states
    rest = response.read()
    code = stop.wait(timeout=60)

    connection.close()
    assert while_draining == {proxy.port: "stopping"}
    assert len(rest) == LARGE
    assert code == 0
    assert background.states == {}
    assert proxy.backends() == []


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_https_is_answered_with_a_certificate_of_the_local_authority(background: Background) -> None:
    started = background.start("--mode", "dev-selfsigned")

    port = background.proxy.port
    authority = background.proxy.folder / "data" / "tls" / "ca.pem"
    trusting = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=trusting)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    connection.close()

    assert answer.status == 200
    assert (started["mode"], started["endpoints"]) == ("dev-selfsigned", [f"https://127.0.0.1:{port}"])
    assert background.states == {port: "running"}


def test_what_went_wrong_last_is_told(background: Background) -> None:
    nobody = f"https://127.0.0.1:{free_port()}/directory"
    acme = {"domains": ["old.example.com"], "directory": nobody}
    config = {"server": {"port": background.proxy.port}, "tls": {"redirect_port": 0, "acme": acme}}
    background.proxy.config.write_text(json.dumps(config))

    background.start("--mode", "https-acme", "--acme-domain", "gpu.example.com")
    (found,) = eventually(lambda: [one for one in background.json("status") if one["last_error"]])

    assert "no new TLS certificate for gpu.example.com" in found["last_error"]
    assert (found["state"], found["mode"]) == ("running", "https-acme")
    assert found["endpoints"] == [f"https://gpu.example.com:{background.proxy.port}"]
