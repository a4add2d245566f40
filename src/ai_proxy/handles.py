"""Handles: a proxy that serves says so in the store, and others judge by that how it stands.

A pid alone proves nothing, since systems give pids out again: it is the proxy's only together with the moment
at which the process began.
"""

import asyncio
import http.client
import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING

import psutil
from loguru import logger

from ai_proxy.core.errors import StoreError
from ai_proxy.core.options import ProxyMode
from ai_proxy.core.settings import TlsSettings
from ai_proxy.core.store_ports import HandleStore, ProxyHandle
from ai_proxy.platform.addresses import endpoints, local_host
from ai_proxy.platform.process import READY, STOPPING, notify
from ai_proxy.platform.tasks import cancel, spawn
from ai_proxy.runtimes.process.session import TOLERANCE, has_ended

if TYPE_CHECKING:
    from loguru import Message

ANSWER_WITHIN = 2.0
"""Seconds that a proxy has to answer when it is asked whether it lives."""
ERROR_INTERVAL = 1.0
"""Seconds between two notes of what went wrong: a flood of errors is no flood of writes."""
LONGEST_ERROR = 500
"""Characters kept of what went wrong."""


class Standing(StrEnum):
    """How the proxy of a handle stands."""

    RUNNING = "running"
    STOPPING = "stopping"
    NOT_ANSWERING = "not_answering"
    DEAD = "dead"
    ELSEWHERE = "elsewhere"


class Announcement:
    """Keeps the handle of this proxy. That a handle cannot be kept is told, and stops nobody from serving."""

    def __init__(self, handles: HandleStore | None) -> None:
        self._handles = handles
        self._handle: ProxyHandle | None = None
        self._error = ""
        self._news = asyncio.Event()

    async def serving(self, host: str, port: int, tls: TlsSettings) -> None:
        """Say that this proxy takes requests: in the store, and to the service manager.

        Args:
            host: Address it listens on.
            port: Port it listens on.
            tls: How it serves.
        """
        self._handle = own_handle(host, port, ProxyMode.of(tls.mode), endpoints(host, port, tls))
        await self._forget_dead(port)
        await self._put()
        notify(READY)

    async def stopping(self) -> None:
        """Say that this proxy takes no more requests, and ends."""
        notify(STOPPING)
        if self._handle is not None:
            self._handle = replace(self._handle, endpoints=())
            await self._put()

    def note(self, error: str) -> None:
        """Have the handle tell what went wrong last."""
        self._error = error
        self._news.set()

    async def keep(self) -> None:
        """Write down what is noted, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._put()
            await asyncio.sleep(ERROR_INTERVAL)

    async def withdraw(self) -> None:
        """Remove the handle."""
        if self._handles and self._handle:
            with _told():
                await self._handles.drop(self._handle.id)

    async def _put(self) -> None:
        if self._handles and self._handle:
            with _told():
                await self._handles.put(replace(self._handle, last_error=self._error))

    async def _forget_dead(self, port: int) -> None:
        """Forget those that ended without a word and had our place: there is one at most for each port."""
        if self._handles:
            with _told():
                for handle in await self._handles.all():
                    if handle.port == port and is_here(handle) and process_of(handle) is None:
                        await self._handles.drop(handle.id)


@asynccontextmanager
async def announced(handles: HandleStore | None) -> AsyncIterator[Announcement]:
    """Yield what keeps this proxy's handle; errors that are logged meanwhile become its last one.

    There is a handle from `Announcement.serving` on, until this is left.

    Args:
        handles: Where it is kept; None for nowhere, and only the service manager is told.
    """
    announcement = Announcement(handles)
    keeper = spawn(announcement.keep(), "keep the handle")
    try:
        with _heard(announcement.note):
            yield announcement
    finally:
        await cancel(keeper)
        await announcement.withdraw()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except StoreError as error:  # no error: as such, it would be noted, and could not be written either
        logger.warning("'ai-proxy proxy status' does not tell how this proxy stands: {}", error)


@contextmanager
def _heard(note: Callable[[str], None]) -> Iterator[None]:
    """Pass on every error that is logged, in whatever thread."""
    loop = asyncio.get_running_loop()

    def hear(message: "Message") -> None:
        record = message.record
        text = f"{record['time']:%Y-%m-%d %H:%M:%S} {record['message']}"
        loop.call_soon_threadsafe(note, text[:LONGEST_ERROR])

    sink = logger.add(hear, level="ERROR", format="{message}")
    try:
        yield
    finally:
        logger.remove(sink)


def own_handle(host: str, port: int, mode: ProxyMode, urls: tuple[str, ...]) -> ProxyHandle:
    """Return a new handle of this process."""
    started = psutil.Process().create_time()
    return ProxyHandle(
        secrets.token_hex(4), socket.gethostname(), os.getpid(), started, host, port, mode, urls
    )


def is_here(handle: ProxyHandle) -> bool:
    """Tell whether a proxy runs, or ran, on this machine: several may share a store."""
    return handle.machine == socket.gethostname()


def process_of(handle: ProxyHandle) -> psutil.Process | None:
    """Return the process of a proxy on this machine; None when it has ended, whoever has its pid by now."""
    try:
        process = psutil.Process(handle.pid)
        is_same = abs(process.create_time() - handle.started) <= TOLERANCE
    except psutil.NoSuchProcess:
        return None
    return process if is_same and not has_ended(handle.pid) else None


async def standing(handle: ProxyHandle) -> Standing:
    """Find out how a proxy stands."""
    if not is_here(handle):
        return Standing.ELSEWHERE
    if process_of(handle) is None:
        return Standing.DEAD
    if not handle.endpoints:
        return Standing.STOPPING
    return Standing.RUNNING if await asyncio.to_thread(answers, handle) else Standing.NOT_ANSWERING


def answers(handle: ProxyHandle) -> bool:
    """Ask a proxy on this machine whether it lives; that it wants a key, or refuses us, is an answer."""
    connection = _connection(handle)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status < HTTPStatus.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _connection(handle: ProxyHandle) -> http.client.HTTPConnection:
    host = local_host(handle.host)
    if handle.mode == ProxyMode.LOCAL_HTTP:
        return http.client.HTTPConnection(host, handle.port, timeout=ANSWER_WITHIN)
    # Whether it lives is asked, and no secret told: any certificate will do.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, handle.port, timeout=ANSWER_WITHIN, context=context)
