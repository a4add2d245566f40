import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from loguru import logger

from ai_proxy.cli.proxy import _end_all, _list_proxies
from ai_proxy.core.errors import StoreError
from ai_proxy.core.options import ProxyMode
from ai_proxy.core.settings import TlsMode, TlsSettings
from ai_proxy.core.store_ports import Instance, InstanceStore
from ai_proxy.instances.announcement import announced, own_instance
from ai_proxy.instances.status import InstanceStatus, process_of, status_of
from ai_proxy.persistence.database import file_url
from ai_proxy.persistence.store import open_store
from ai_proxy.platform.process import READY, STOPPING, birth, boot_id, notify
from ai_proxy.platform.tasks import Background


@pytest.fixture
async def instances(tmp_path: Path) -> AsyncIterator[InstanceStore]:
    async with open_store(file_url(tmp_path)) as store:
        yield store.instances


@contextmanager
def http_server(status: int = 200) -> Iterator[int]:
    """Answer everything with a status; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def instance(port: int = 1) -> Instance:
    """Return a instance of the process that runs the tests."""
    return own_instance("127.0.0.1", port, ProxyMode.LOCAL_HTTP, (f"http://127.0.0.1:{port}",))


async def test_a_proxy_has_a_handle_from_when_it_serves_until_its_end(instances: InstanceStore) -> None:
    async with announced(Background()) as announcement:
        announcement.keep_in(instances)
        before = await instances.all()
        await announcement.serving("127.0.0.1", 8443, TlsSettings(TlsMode.DEV_SELFSIGNED))
        (during,) = await instances.all()

    assert before == []
    assert (during.pid, during.machine) == (os.getpid(), socket.gethostname())
    assert during.started == psutil.Process().create_time()
    assert (during.mode, during.endpoints) == ("dev-selfsigned", ("https://127.0.0.1:8443",))
    assert await instances.all() == []


async def test_a_proxy_that_fails_leaves_no_handle(instances: InstanceStore) -> None:
    async def fail() -> None:
        async with announced(Background()) as announcement:
            announcement.keep_in(instances)
            await announcement.serving("127.0.0.1", 1, TlsSettings())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert await instances.all() == []


async def test_errors_that_are_logged_are_told_by_the_handle(instances: InstanceStore) -> None:
    async with announced(Background()) as announcement:
        announcement.keep_in(instances)
        logger.error("no certificate")
        await announcement.serving("127.0.0.1", 1, TlsSettings())
        await until_told(instances, "no certificate")

        logger.warning("a warning is none")
        await asyncio.to_thread(logger.error, "renewal failed")
        await until_told(instances, "renewal failed")


async def until_told(instances: InstanceStore, error: str) -> None:
    async with asyncio.timeout(60):
        while not any(one.last_error.endswith(error) for one in await instances.all()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_one_that_died_is_forgotten_when_another_takes_its_place(instances: InstanceStore) -> None:
    dead = replace(instance(7), birth="an earlier boot:1.0")
    await instances.put(replace(dead, id="dead"))
    await instances.put(replace(dead, id="dead-on-another-port", port=8))
    await instances.put(replace(dead, id="elsewhere", machine="another"))

    async with announced(Background()) as announcement:
        announcement.keep_in(instances)
        await announcement.serving("127.0.0.1", 7, TlsSettings())

    assert {one.id for one in await instances.all()} == {"dead-on-another-port", "elsewhere"}


class BrokenInstances:
    """A store that has gone away."""

    async def all(self) -> list[Instance]:
        raise StoreError("gone")

    async def put(self, instance: Instance) -> None:
        raise StoreError("gone")

    async def drop(self, instance_id: str) -> None:
        raise StoreError("gone")


async def test_a_broken_store_keeps_nobody_from_serving() -> None:
    told: list[str] = []
    sink = logger.add(told.append, level="WARNING", format="{message}")

    async with announced(Background()) as announcement:
        announcement.keep_in(BrokenInstances())
        await announcement.serving("127.0.0.1", 1, TlsSettings())
        await announcement.stopping()

    logger.remove(sink)
    assert set(told) == {"'ai-proxy proxy status' does not show this proxy as it is: gone\n"}


async def test_a_proxy_that_answers_is_running() -> None:
    with http_server() as port:
        assert await status_of(instance(port)) is InstanceStatus.RUNNING


async def test_one_that_wants_a_key_is_running() -> None:
    with http_server(401) as port:
        assert await status_of(instance(port)) is InstanceStatus.RUNNING


async def test_one_that_refuses_connections_or_fails_is_not_answering() -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        assert await status_of(instance(bound.getsockname()[1])) is InstanceStatus.NOT_ANSWERING
    with http_server(502) as port:
        assert await status_of(instance(port)) is InstanceStatus.NOT_ANSWERING


async def test_one_that_is_about_to_end_is_stopping(instances: InstanceStore) -> None:
    async with announced(Background()) as announcement:
        announcement.keep_in(instances)
        await announcement.serving("127.0.0.1", 1, TlsSettings())
        await announcement.stopping()
        (found,) = await instances.all()

    assert await status_of(found) is InstanceStatus.STOPPING


async def test_a_pid_that_another_process_has_by_now_is_no_life() -> None:
    reused = replace(instance(), birth=f"{boot_id()}:1.0")

    assert process_of(reused) is None
    assert await status_of(reused) is InstanceStatus.DEAD


async def test_one_lives_whatever_the_clock_of_the_system_is_set_to() -> None:
    before_the_step = replace(instance(), started=psutil.Process().create_time() - 60)

    assert process_of(before_the_step) is not None


async def test_one_announced_by_an_earlier_version_is_known_by_its_start() -> None:
    started = psutil.Process().create_time()
    same, another = (replace(instance(), birth="", started=at) for at in (started, started - 60))

    assert process_of(same) is not None
    assert process_of(another) is None


async def test_a_process_that_ended_is_dead_also_before_it_is_reaped() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    ours = replace(instance(), pid=process.pid, birth=birth(process.pid) or "")

    alive = process_of(ours)
    process.kill()
    await process.wait()

    assert alive is not None
    assert await status_of(ours) is InstanceStatus.DEAD


class FullInstances(BrokenInstances):
    """A store that can be read, on a disk that is full."""

    def __init__(self, *instances: Instance) -> None:
        self._instances = list(instances)

    async def all(self) -> list[Instance]:
        return self._instances


async def test_a_store_on_a_full_disk_keeps_no_proxy_from_being_stopped_and_listed() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    ours = replace(instance(), pid=process.pid, birth=birth(process.pid) or "")

    (ended,) = await _end_all(FullInstances(ours), [ours], 5.0)
    await process.wait()
    (listed,) = await _list_proxies(FullInstances(ours))

    assert ended["outcome"] == "stopped"
    assert listed["state"] == "dead"


async def test_one_on_another_machine_is_not_judged() -> None:
    assert await status_of(replace(instance(), machine="another", pid=1)) is InstanceStatus.ELSEWHERE


@pytest.mark.parametrize("name", ["path", "abstract"])
def test_the_service_manager_is_told(name: str, tmp_path: Path) -> None:
    address = str(tmp_path / "notify") if name == "path" else f"@ai-proxy-test-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(address.replace("@", "\0"))

        notify(READY, {"NOTIFY_SOCKET": address})
        notify(STOPPING, {"NOTIFY_SOCKET": address})

        assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_a_service_manager_that_is_away_harms_nothing(tmp_path: Path) -> None:
    notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notify(READY, {})
