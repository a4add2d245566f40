"""An instance announces itself: an entry in the store, from which others learn where and how it serves."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
from loguru import logger

from ai_proxy.core.errors import StoreError
from ai_proxy.core.options import ProxyMode
from ai_proxy.core.settings import TlsSettings
from ai_proxy.core.store_ports import Instance, InstanceStore
from ai_proxy.instances.status import is_here, process_of
from ai_proxy.platform.addresses import endpoints
from ai_proxy.platform.process import READY, STOPPING, birth, notify
from ai_proxy.platform.tasks import Background, cancel

if TYPE_CHECKING:
    from loguru import Message

ERROR_INTERVAL = 1.0
"""Seconds between two writes of the last error: a flood of errors is no flood of writes."""
LONGEST_ERROR = 500
"""Characters kept of the last error."""


class Announcement:
    """Keeps this instance's entry in the store; a failure to write it is logged, and stops nothing."""

    def __init__(self) -> None:
        self._instances: InstanceStore | None = None
        self._instance: Instance | None = None
        self._error = ""
        self._noted = asyncio.Event()

    async def serving(self, host: str, port: int, tls: TlsSettings, stop_within: float = 0.0) -> None:
        """Announce that this instance takes requests: in the store, and to the service manager.

        Args:
            host: Address it listens on.
            port: Port it listens on.
            tls: How it serves.
            stop_within: Seconds it may take to end.
        """
        urls = endpoints(host, port, tls)
        instance = own_instance(host, port, ProxyMode.of(tls.mode), urls)
        self._instance = replace(instance, stop_within=stop_within)
        await self._drop_dead(port)
        await self._put()
        notify(READY)

    def ends_within(self, seconds: float) -> None:
        """Announce how long this instance may take to end from now on."""
        if self._instance is not None:
            self._instance = replace(self._instance, stop_within=seconds)
            self._noted.set()

    def keep_in(self, instances: InstanceStore) -> None:
        """Keep the entry there from now on; until then, only the service manager is notified."""
        self._instances = instances
        self._noted.set()

    async def stopping(self) -> None:
        """Announce that this instance takes no more requests, and ends."""
        notify(STOPPING)
        if self._instance is not None:
            self._instance = replace(self._instance, endpoints=())
            await self._put()

    def note(self, error: str) -> None:
        """Make this the last error of the entry."""
        self._error = error
        self._noted.set()

    async def keep(self) -> None:
        """Write the last error whenever there is a new one, until cancelled."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            await self._put()
            await asyncio.sleep(ERROR_INTERVAL)

    async def withdraw(self) -> None:
        """Remove the entry."""
        if self._instances and self._instance:
            with _failures_logged():
                await self._instances.drop(self._instance.id)

    async def _put(self) -> None:
        if self._instances and self._instance:
            with _failures_logged():
                await self._instances.put(replace(self._instance, last_error=self._error))

    async def _drop_dead(self, port: int) -> None:
        """Drop the entries of instances that were killed and had our port: there is one at most for each."""
        if self._instances:
            with _failures_logged():
                for other in await self._instances.all():
                    if other.port == port and is_here(other) and process_of(other) is None:
                        await self._instances.drop(other.id)


@asynccontextmanager
async def announced(background: Background) -> AsyncIterator[Announcement]:
    """Yield what keeps this instance's entry; errors that are logged meanwhile become its last one.

    There is an entry from `Announcement.serving` on, until this is left.

    Args:
        background: Runs what writes the last error.
    """
    announcement = Announcement()
    keeper = background.run(announcement.keep, "announcement of this instance")
    try:
        with _errors_passed_to(announcement):
            yield announcement
    finally:
        await cancel(keeper)
        await announcement.withdraw()


@contextmanager
def _failures_logged() -> Iterator[None]:
    try:
        yield
    except StoreError as error:  # a warning: an error would be noted, and could not be written either
        logger.warning("'ai-proxy proxy status' does not show this proxy as it is: {}", error)


@contextmanager
def _errors_passed_to(announcement: Announcement) -> Iterator[None]:
    """Pass on every error that is logged, in whatever thread."""
    loop = asyncio.get_running_loop()

    def pass_on(message: "Message") -> None:
        record = message.record
        text = f"{record['time']:%Y-%m-%d %H:%M:%S} {record['message']}"
        loop.call_soon_threadsafe(announcement.note, text[:LONGEST_ERROR])

    sink = logger.add(pass_on, level="ERROR", format="{message}")
    try:
        yield
    finally:
        logger.remove(sink)


def own_instance(host: str, port: int, mode: ProxyMode, urls: tuple[str, ...]) -> Instance:
    """Return a new entry for this process."""
    pid, started = os.getpid(), psutil.Process().create_time()
    return Instance(
        id=secrets.token_hex(4),
        machine=socket.gethostname(),
        pid=pid,
        started=started,
        host=host,
        port=port,
        mode=mode,
        endpoints=urls,
        birth=birth(pid) or "",
    )
