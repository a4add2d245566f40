"""The composition root: has the parts built, serves with them, and ends in reverse order."""

import asyncio
import contextlib
import os
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from loguru import logger

from ai_proxy.api.middleware import client_principal, owner_principal
from ai_proxy.api.sockets import listen_private, serve_unix
from ai_proxy.assembly import (
    CLIENT_SOCKET,
    ListenError,
    Parts,
    assemble,
    close,
    management,
    overridden_settings,
)
from ai_proxy.config.build import build_services, tls_settings
from ai_proxy.config.load import configuration
from ai_proxy.config.schema import Config
from ai_proxy.control.plane import ControlPlane
from ai_proxy.core.errors import ProxyError
from ai_proxy.core.options import LogLevel, ServeOptions, overridden
from ai_proxy.core.settings import TlsSettings
from ai_proxy.gateway.guard import KeyGuard
from ai_proxy.gateway.http.respond import STRICT_TRANSPORT
from ai_proxy.gateway.listener import Gateway, leave_out_failed_accepts
from ai_proxy.gateway.routing.endpoints import OLLAMA, OPENAI, Frontend
from ai_proxy.instances.background import drain_time
from ai_proxy.platform import run_folder
from ai_proxy.platform.addresses import local_url
from ai_proxy.platform.clock import SystemClock
from ai_proxy.platform.data_folder import data_folder
from ai_proxy.platform.process import raise_file_limit, settle_memory
from ai_proxy.platform.tasks import Background, cancel
from ai_proxy.platform.watchdog import notify_watchdog
from ai_proxy.telemetry.console import console
from ai_proxy.telemetry.logs import configure
from ai_proxy.tls.serve import serve_certificates

LOOK_EVERY = 2.0
"""Seconds between two looks whether the run directory is still there."""


def serve(options: ServeOptions) -> int:
    """Serve until a signal ends it; return the exit code.

    Raises:
        InvalidConfigError: The configuration has errors.
        RunDirError: The run directory cannot be used.
        ListenError: The address cannot be had.
    """
    with console(sys.stderr) as out:
        set_level = configure(options.log_level, options.log_format, options.log_file, out)
        path, config = configuration(options.config, os.environ)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options, path, config, set_level))
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory, or None for asyncio's own loop where there is no uvloop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(
    options: ServeOptions, path: Path | None, config: Config, set_level: Callable[[LogLevel], None]
) -> None:
    """Serve under one task group: what cannot be restarted ends the proxy with its error.

    The service manager then starts the proxy again, which finds its services running.
    """
    asyncio.get_running_loop().set_exception_handler(leave_out_failed_accepts)
    try:
        async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
            await _serve_until_stopped(stack, Background(group=group), options, path, config, set_level)
    except BaseExceptionGroup as failed:
        if len(failed.exceptions) == 1:
            raise failed.exceptions[0] from None
        raise


async def _serve_until_stopped(
    stack: AsyncExitStack,
    background: Background,
    options: ServeOptions,
    path: Path | None,
    config: Config,
    set_level: Callable[[LogLevel], None],
) -> None:
    raise_file_limit()
    port = overridden_settings(config, options).port
    folder = run_folder.create_instance_folder(run_folder.base_folder(options.run_dir), port)
    stack.enter_context(run_folder.lock_instance(folder))
    parts = await assemble(stack, background, options, path, config, folder, set_level)
    plane, gateway = parts.plane, parts.gateway
    app = management(parts)
    client_socket = serve_unix(folder / CLIENT_SOCKET, app, client_principal, background)
    remake_client_socket = await stack.enter_async_context(client_socket)
    certificates = overridden(tls_settings(config), options)
    # Before anything is adopted: a failure must not end it.
    port = await _listen(stack, parts, certificates)
    await gateway.listen_to_owner(listen_private(folder / run_folder.MODELS))
    # Before anything is started: from here on a signal ends what runs as well.
    stop = _handle_signals(plane, gateway, background)
    await plane.open(build_services(config))
    await gateway.accept()
    owner_socket = serve_unix(folder / "control.sock", app, owner_principal, background)
    remake_owner_socket = await stack.enter_async_context(owner_socket)

    async def remake() -> None:
        run_folder.create_instance_folder(folder.parent, int(folder.name))
        remake_client_socket()
        await gateway.listen_to_owner(listen_private(folder / run_folder.MODELS))
        await gateway.accept()
        if not (folder / "lock").exists():
            stack.enter_context(run_folder.lock_instance(folder))
        remake_owner_socket()

    keeping = background.run(partial(_keep_run_folder, folder, remake), "keep the run directory")
    settle_memory()
    if parts.settings.watch and path is not None:
        background.run(partial(_watch, path, plane), "watch the configuration")
    stop_within = drain_time(parts.settings.limits, build_services(config))
    await parts.announcement.serving(parts.settings.host, port, certificates, stop_within)
    background.run(notify_watchdog, "watchdog of the service manager")
    _announce(parts, path)
    discovering = background.run(parts.discovery.run, "discover engines")
    await stop.wait()
    await parts.announcement.stopping()
    await cancel(discovering, keeping)
    await _drain(parts)


async def _keep_run_folder(folder: Path, remake: Callable[[], Awaitable[None]]) -> None:
    """Make the sockets again when somebody deletes them, such as a cleaner of old files in /tmp."""
    sockets = [folder / name for name in ("control.sock", CLIENT_SOCKET, run_folder.MODELS)]
    while True:
        await asyncio.sleep(LOOK_EVERY)
        if not all(path.exists() for path in sockets):
            await remake()
            logger.warning("the run directory {} was deleted while it is in use; it is made again", folder)


async def _drain(parts: Parts) -> None:
    """Take no more requests, and let those in flight finish."""
    in_flight = sum(view.in_flight for view in parts.plane.services())
    patience = f"at most {parts.settings.limits.shutdown_timeout:g} s; Ctrl-C again ends them"
    logger.info("stopping: {} requests in flight{}", in_flight, f", {patience}" if in_flight else "")
    await close(parts.plane, parts.gateway)


async def _listen(stack: AsyncExitStack, parts: Parts, certificates: TlsSettings) -> int:
    """Bind every public address; return the port of the first."""
    settings, gateway, addresses = parts.settings, parts.gateway, parts.addresses
    host = settings.host
    tls = await stack.enter_async_context(
        serve_certificates(
            certificates,
            data_folder() / "tls",
            host,
            settings.port,
            SystemClock(),
            parts.background,
            gateway.redirect,
        )
    )
    lines = STRICT_TRANSPORT if certificates.is_public else b""
    openai, ollama = replace(OPENAI, lines=lines), replace(OLLAMA, lines=lines)
    port = await _bind(gateway, host, settings.port, openai, tls, "--host and --port")
    addresses.http = local_url(host, port, tls=tls is not None)
    if settings.ollama_port is not None:
        ollama_port = await _bind(gateway, host, settings.ollama_port, ollama, tls, "server.ollama_port")
        addresses.ollama = local_url(host, ollama_port, tls=tls is not None)
        logger.info("in the place of Ollama on {}", addresses.ollama)
    return port


async def _bind(
    gateway: Gateway, host: str, port: int, frontend: Frontend, tls: ssl.SSLContext | None, setting: str
) -> int:
    try:
        return await gateway.listen(host, port, tls, frontend)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with {setting}"
        ) from error


def _handle_signals(plane: ControlPlane, gateway: Gateway, background: Background) -> asyncio.Event:
    """Return an event that is set when the proxy is to end; a second signal ends it without patience."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def end() -> None:
        if stop.is_set():
            gateway.abort()
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, end)
    reload = partial(background.run, partial(_reload, plane), "reload on SIGHUP")
    loop.add_signal_handler(signal.SIGHUP, reload)
    return stop


async def _reload(plane: ControlPlane) -> None:
    with contextlib.suppress(ProxyError):  # the plane has logged it
        await plane.reload()


async def _watch(path: Path, plane: ControlPlane) -> None:
    """Reload whenever the file changes; editors replace files, so its folder is watched."""
    from watchfiles import awatch

    async for changes in awatch(path.parent, recursive=False):
        if any(Path(changed).name == path.name for _, changed in changes):
            await _reload(plane)


def _announce(parts: Parts, path: Path | None) -> None:
    guard, address = parts.gateway.shared.guard, parts.addresses.http
    if isinstance(guard, KeyGuard):
        who = (
            "clients need an API key"
            if guard.asks_for_keys
            else "every client is served: there is no API key"
        )
        logger.log("WARNING" if guard.is_open_to_others else "INFO", "{}", who)
    logger.info(
        "serving {} services on {} (configuration: {}; API documentation: {}/docs)",
        len(parts.plane.services()),
        address,
        path or "none",
        address,
    )
