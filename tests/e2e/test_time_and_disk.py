"""The proxy stands still, its clock jumps, its disk is slow: what clients and the operator see."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.e2e.conftest import Proxy, chat, eventually, fake

from ai_proxy.config.schema import Config
from ai_proxy.core.keys import Grant
from ai_proxy.instances.state import open_state
from ai_proxy.platform.clock import SystemClock
from ai_proxy.testing.fake_engine import Behaviour

WORDS = 40

JUMPING = '''
"""Lets the wall clock of a process jump, by seconds in a file; the monotonic clock goes on."""
import os, time

_real, _file = time.time, os.environ["CLOCK_JUMP"]

def _jumped():
    with open(_file) as file:
        return _real() + float(file.read() or 0)

time.time = _jumped
'''

SLOW_SYNC = """
typedef long size;
extern int usleep(unsigned);
extern long syscall(long, ...);
int fsync(int file) { usleep(300000); return syscall(74, file); }
int fdatasync(int file) { usleep(300000); return syscall(75, file); }
"""
"""Makes a disk slow that flushes: 74 and 75 are the calls of x86-64."""


def make_key(proxy: Proxy, expires: float | None = None) -> str:
    """Make a key before the proxy is started."""

    async def make() -> str:
        async with open_state(Config(), SystemClock(), proxy.environment) as state:
            plain, _ = await state.security.keys.create(Grant("test"), expires)
            return plain.text

    return asyncio.run(make())


def streamed(proxy: Proxy, service: str) -> str:
    """Return what a stream brought, to its end."""
    answer = proxy.ask(f"/service/{service}/v1/chat/completions", chat(stream=True))
    assert answer.status == 200, answer.body
    return answer.body.decode()


@contextmanager
def stopped(proxy: Proxy) -> Iterator[None]:
    """Have the proxy stand still meanwhile, as with SIGSTOP or a machine that sleeps."""
    assert proxy.process is not None
    proxy.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        proxy.process.send_signal(signal.SIGCONT)


def test_a_proxy_that_stood_still_loses_no_stream_and_no_load_that_got_ready_meanwhile(proxy: Proxy) -> None:
    proxy.configure(
        a=fake(Behaviour.OK, "--words", str(WORDS), "--delay", "0.05"),
        slow=fake(Behaviour.SLOW_LOAD, "--seconds", "2", start_timeout="3s"),
        idle=fake(Behaviour.OK, idle_timeout="30s"),
    )
    proxy.serve()
    for service in ("a", "idle"):
        proxy.cli("start", service)

    with ThreadPoolExecutor() as pool:
        stream = pool.submit(streamed, proxy, "a")
        waiting = pool.submit(proxy.ask, "/service/slow/v1/models")
        eventually(lambda: proxy.service("slow")["state"] == "loading")
        with stopped(proxy):
            during = pool.submit(proxy.ask, "/service/idle/v1/models")
            with pytest.raises(TimeoutError):  # longer than the load may take
                during.result(6)

    assert stream.result().endswith("data: [DONE]\n\n")
    assert (waiting.result().status, during.result().status) == (200, 200)
    assert proxy.service("idle")["state"] == "ready"
    assert "Traceback" not in proxy.told()


@pytest.mark.parametrize(("jump", "status"), [(86_400, 401), (-86_400, 200)])
def test_a_wall_clock_that_jumps_ends_no_stream_and_keys_go_by_the_new_time(
    proxy: Proxy, tmp_path: Path, jump: int, status: int
) -> None:
    key = make_key(proxy, SystemClock().wall() + 3600)
    proxy.configure(a=fake(Behaviour.OK, "--words", str(WORDS), "--delay", "0.05"))
    (tmp_path / "rig").mkdir()
    (tmp_path / "rig" / "sitecustomize.py").write_text(JUMPING)
    clock = tmp_path / "jump"
    clock.write_text("0")
    proxy.environment |= {"PYTHONPATH": str(tmp_path / "rig"), "CLOCK_JUMP": str(clock)}
    proxy.serve()

    @contextmanager
    def asked(method: str, path: str, body: object = None) -> Iterator[http.client.HTTPResponse]:
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)) as connection:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            with connection.getresponse() as response:
                yield response

    def is_answered(wanted: int) -> bool:
        with asked("GET", "/service/a/v1/models") as response:
            return response.status == wanted

    assert is_answered(200)
    with asked("POST", "/service/a/v1/chat/completions", chat(stream=True)) as stream:
        begun = stream.read1(10)
        clock.write_text(str(jump))
        eventually(lambda: is_answered(status))
        rest = stream.read()

    assert begun
    assert rest.endswith(b"data: [DONE]\n\n")
    assert "Traceback" not in proxy.told()
    assert proxy.end() == 0


@pytest.mark.skipif(shutil.which("cc") is None or os.uname().machine != "x86_64", reason="no compiler")
def test_a_disk_that_is_slow_to_flush_holds_up_no_request(proxy: Proxy, tmp_path: Path) -> None:
    proxy.configure(a=fake(Behaviour.OK))
    (tmp_path / "slow.c").write_text(SLOW_SYNC)
    build = ["cc", "-shared", "-fPIC", "-nostdlib", "-o", str(tmp_path / "slow.so"), str(tmp_path / "slow.c")]
    subprocess.run(build, check=True)
    proxy.environment["LD_PRELOAD"] = str(tmp_path / "slow.so")
    proxy.serve()
    proxy.cli("start", "a")

    with ThreadPoolExecutor() as pool:
        made = pool.submit(proxy.ask, "/api/v1/keys", {"label": "new"})
        answered = 0
        while not made.done():
            answered += proxy.ask("/service/a/v1/models").status in (200, 401)

    assert made.result().status == 201
    assert answered > 1
    assert "Traceback" not in proxy.told()
