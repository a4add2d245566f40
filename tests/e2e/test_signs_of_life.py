"""The proxy goes on under poor conditions, says so, and the service manager learns that it does."""

import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.e2e.conftest import PROGRAM, Proxy, eventually, fake

from ai_proxy.testing.fake_engine import Behaviour

FEW_FILES = ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh"]


@contextmanager
def service_manager(path: Path) -> Iterator[socket.socket]:
    """Listen as a service manager does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(60)
        yield manager


def test_a_service_manager_with_a_watchdog_is_told_that_the_event_loop_goes_on(proxy: Proxy) -> None:
    proxy.configure()
    with service_manager(proxy.run_dir / "notify") as manager:
        proxy.environment |= {"NOTIFY_SOCKET": str(proxy.run_dir / "notify"), "WATCHDOG_USEC": "200000"}

        proxy.serve()
        told = [manager.recv(100) for _ in range(4)]
        proxy.end()

    assert told == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]


def test_without_a_watchdog_there_are_no_signs_of_life(proxy: Proxy) -> None:
    proxy.configure()
    with service_manager(proxy.run_dir / "notify") as manager:
        proxy.environment["NOTIFY_SOCKET"] = str(proxy.run_dir / "notify")

        proxy.serve()
        proxy.end()
        told = [manager.recv(100) for _ in range(2)]

    assert told == [b"READY=1", b"STOPPING=1"]


def test_a_log_that_nobody_reads_holds_up_no_request(proxy: Proxy) -> None:
    proxy.configure(a=fake(Behaviour.OK))
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    words = ["--log-level", "debug", "serve", "--config", str(proxy.config), "--run-dir", str(proxy.run_dir)]
    proxy.process = subprocess.Popen(
        [PROGRAM, *words], stderr=writer, env={**os.environ, **proxy.environment}
    )
    os.close(writer)
    eventually(proxy.answers)

    answers = {proxy.ask("/service/a/v1/models").status for _ in range(200)}  # each is several log lines
    os.close(reader)
    answers |= {proxy.ask("/service/a/v1/models").status for _ in range(20)}

    assert answers == {200}
    assert proxy.end() == 0


def test_with_few_open_files_it_says_so_serves_and_tells_clients_beyond_that(proxy: Proxy) -> None:
    proxy.configure(a=fake(Behaviour.OK))
    words = ["serve", "--config", str(proxy.config), "--run-dir", str(proxy.run_dir)]
    with proxy.log.open("ab") as log:
        proxy.process = subprocess.Popen(
            [*FEW_FILES, str(PROGRAM), *words], stderr=log, env={**os.environ, **proxy.environment}
        )
    eventually(proxy.answers)
    assert proxy.ask("/service/a/v1/models").status == 200

    with ExitStack() as crowd:
        for _ in range(150):
            crowd.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
        beyond = proxy.ask("/service/a/v1/models")

    assert "only 256 files may be open at once, so at most 96 clients can connect" in proxy.told()
    assert (beyond.status, beyond.headers["X-AI-Proxy-Error"]) == (503, "overloaded")
    eventually(lambda: proxy.ask("/service/a/v1/models").status == 200)
    assert "Traceback" not in proxy.told()
    assert proxy.end() == 0
