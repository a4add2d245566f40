"""The composition root: builds everything, in order, and takes it down again in reverse."""

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from loguru import logger
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from ai_proxy import rundir
from ai_proxy.addresses import Addresses, local_url
from ai_proxy.api.door import client_principal, owner_principal
from ai_proxy.api.late import LateApplication
from ai_proxy.api.server import listen_private, serve_unix
from ai_proxy.config.build import (
    build_services,
    engine_settings,
    security_settings,
    server_settings,
    telemetry_settings,
    tls_settings,
)
from ai_proxy.config.detected import detected_services
from ai_proxy.config.load import find_config, load_config
from ai_proxy.config.schema import Config
from ai_proxy.control.discovery import Discovery, forget_changed
from ai_proxy.control.places import own_places
from ai_proxy.control.plane import ControlPlane
from ai_proxy.control.timing import SystemClock
from ai_proxy.core.detection import Spot, spot
from ai_proxy.core.errors import ProxyError, StoreError, StoreUnavailableError
from ai_proxy.core.options import LogLevel, ServeOptions, overridden
from ai_proxy.core.policy import is_exposed
from ai_proxy.core.ports import Runtime
from ai_proxy.core.run_settings import RunSettings
from ai_proxy.core.service import RuntimeKind, Service, Upstream
from ai_proxy.core.settings import DockerSettings, EngineSettings, Limits, SecuritySettings, ServerSettings
from ai_proxy.datadir import data_folder
from ai_proxy.engines.cache import MemoryCache
from ai_proxy.engines.catalog import build_engines
from ai_proxy.engines.detect import Detector
from ai_proxy.gateway.entries import OLLAMA, OPENAI, Front
from ai_proxy.gateway.guard import ClosedGuard, Guard, KeyGuard
from ai_proxy.gateway.listener import Gateway
from ai_proxy.handles import announced
from ai_proxy.identity import owner_id
from ai_proxy.resources.nvidia import find_nvidia
from ai_proxy.runtimes.docker import DockerRuntime
from ai_proxy.runtimes.docker_place import own_container
from ai_proxy.runtimes.external import ExternalRuntime
from ai_proxy.runtimes.process import ProcessRuntime
from ai_proxy.tasks import cancel, spawn
from ai_proxy.telemetry.eventlog import EventLog
from ai_proxy.telemetry.logs import configure
from ai_proxy.telemetry.telemetry import Telemetry, open_telemetry
from ai_proxy.tls.serve import serve_certificates
from ai_proxy.tuning import raise_file_limit, settle_memory
from ai_proxy.vault import Vault, open_vault

VERSION = version("ai-inference-proxy")
RESTART = ("engine", "telemetry", "tls", "store", "security")
"""Sections of the configuration that take effect when the proxy is restarted."""


class ListenError(ProxyError):
    """The address cannot be listened on."""

    code, title = "cannot_listen", "Cannot listen"


def serve(options: ServeOptions) -> int:
    """Serve until told to end; return the exit code.

    Raises:
        InvalidConfigError: The configuration has errors.
        RunDirError: The run directory cannot be used.
        ListenError: The address cannot be had.
    """
    set_level = configure(options.log_level, options.log_format, options.log_file)
    path = find_config(options.config, os.environ, Path.cwd())
    config = load_config(path, os.environ) if path else Config()
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
    settings = _overridden(server_settings(config), options)
    raise_file_limit()
    async with AsyncExitStack() as stack:
        folder = rundir.create_instance_folder(rundir.base_folder(options.run_dir), settings.port)
        stack.enter_context(rundir.lock_instance(folder))
        vault = await _open_vault(stack, config)
        handles = None if isinstance(vault, StoreError) else vault.store.handles
        announcement = await stack.enter_async_context(announced(handles))
        guard = _guard(vault, security_settings(config), settings.host)
        telemetry = await stack.enter_async_context(
            open_telemetry(telemetry_settings(config), os.environ, VERSION, settings.host, SystemClock())
        )
        if isinstance(vault, Vault):
            telemetry.listen(vault.security.usage.note_all)
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, auto_decompress=False)
        )
        runtimes = _runtimes(folder, settings.docker, stack)
        plane = ControlPlane(SystemClock(), runtimes, build_engines(session), telemetry.recorder)
        gateway = _gateway(plane, telemetry, settings.limits, guard, folder / "gateway.sock")
        stack.push_async_callback(_close, plane, gateway)
        plane.load = _loader(path, config, options)
        addresses = Addresses()
        detector = _detector(session, plane, addresses, config, vault)
        discovery = _discovery(detector, plane, config, _engine_settings(engine_settings(config), options))
        _follow_settings(vault, options, set_level, (detector.adapt, discovery.adapt))
        plane.events.listen(forget_changed(plane, detector))
        management = LateApplication({"/health": JSONResponse({"status": "ok", "version": VERSION})})
        await stack.enter_async_context(serve_unix(management, folder / "gateway.sock", client_principal))
        certificates = overridden(tls_settings(config), options)
        tls = await stack.enter_async_context(
            serve_certificates(
                certificates, data_folder() / "tls", settings.host, settings.port, SystemClock()
            )
        )
        # Before anything is adopted: a failure must not end it.
        port = await _listen(gateway, settings, tls, addresses)
        await gateway.listen_to_owner(listen_private(folder / rundir.MODELS))
        await plane.open(build_services(config))
        await gateway.accept()
        await stack.enter_async_context(serve_unix(management, folder / "control.sock", owner_principal))
        stop = _handle_signals(plane, gateway)
        settle_memory()
        if settings.watch and path is not None:
            watcher = spawn(_watch(path, plane), "watch configuration")
            stack.push_async_callback(cancel, watcher)
        await announcement.serving(settings.host, port, certificates)
        _announce(addresses, path, len(plane.services()), guard)
        await management.come(partial(_application, plane, telemetry, gateway, addresses, detector, vault))
        settle_memory()
        discovering = spawn(discovery.run(), "discover engines")
        stack.push_async_callback(cancel, discovering)
        await stop.wait()
        await announcement.stopping()
        await cancel(discovering)
        in_flight = sum(view.in_flight for view in plane.services())
        patience = f"at most {settings.limits.shutdown_timeout:g} s; Ctrl-C again ends them"
        logger.info("stopping: {} requests in flight{}", in_flight, f", {patience}" if in_flight else "")
        await _close(plane, gateway)


async def _open_vault(stack: AsyncExitStack, config: Config) -> Vault | StoreError:
    """Open what lasts; without it, the owner is served, and nobody else: who may call cannot be told."""
    try:
        return await stack.enter_async_context(open_vault(config, SystemClock()))
    except StoreError as error:
        logger.error("clients are refused until this is mended and the proxy is restarted: {}", error.detail)
        logger.error("'ai-proxy check' says more; 'ai-proxy backup restore' brings back what was saved")
        return error


def _guard(vault: Vault | StoreError, settings: SecuritySettings, host: str) -> Guard:
    """Return who decides about clients.

    Raises:
        ListenError: Everybody who can reach the listeners could use the proxy, and nobody has said that this
            is meant.
    """
    if isinstance(vault, StoreError):
        return ClosedGuard(
            StoreUnavailableError("the proxy cannot read its API keys, and serves nobody: see its log")
        )
    exposed = is_exposed(host)
    if exposed and not (settings.allow_unauthenticated or vault.security.keys.has_keys):
        raise ListenError(
            f"{host} can be reached from other machines, and there is no API key yet: make one first with "
            "'ai-proxy api-keys create', listen on 127.0.0.1, or say security.allow_unauthenticated: true"
        )
    return KeyGuard(vault.security, settings, SystemClock(), exposed=exposed)


def _gateway(
    plane: ControlPlane, telemetry: Telemetry, limits: Limits, guard: Guard, management: Path
) -> Gateway:
    """Build the data plane, and tie it to what it asks and tells."""
    upstream = Upstream("localhost", 80, unix_path=str(management))
    gateway = Gateway(plane.scheduler, telemetry.recorder, limits, upstream)
    gateway.tracing = telemetry.tracing
    gateway.protect(guard)
    plane.publish = gateway.publish
    plane.events.listen(EventLog())
    telemetry.watch(plane.services, plane.events.listen)
    return gateway


def _application(
    plane: ControlPlane,
    telemetry: Telemetry,
    gateway: Gateway,
    addresses: Addresses,
    detector: Detector,
    vault: Vault | StoreError,
) -> ASGIApp:
    """Build the management application; imported here, since models can be asked without it."""
    from ai_proxy.api.application import create_app
    from ai_proxy.api.deps import Requests

    requests = Requests(telemetry.recent, gateway.live)
    return create_app(plane, telemetry.metrics, VERSION, addresses, requests, detector, vault)


def _detector(
    session: aiohttp.ClientSession,
    plane: ControlPlane,
    addresses: Addresses,
    config: Config,
    vault: Vault | StoreError,
) -> Detector:
    """Build what finds engines; it leaves out the proxy itself and what that runs."""

    def owners() -> Mapping[Spot, str]:
        ours = (urlsplit(url) for url in (addresses.http, addresses.ollama) if url)
        listeners = {spot(one.hostname or "", one.port or 80): "ai-proxy itself" for one in ours}
        return {**own_places(plane.runs()), **listeners}

    clock, settings = SystemClock(), engine_settings(config)
    ttl = settings.cache_ttl
    cache = vault.store.engine_cache(clock, ttl) if isinstance(vault, Vault) else MemoryCache(clock, ttl)
    return Detector(session, clock, cache, settings, os.environ, owners)


def _discovery(
    detector: Detector, plane: ControlPlane, config: Config, settings: EngineSettings
) -> Discovery:
    """Build what offers the engines that run by themselves."""
    return Discovery(plane, detector, partial(detected_services, config), SystemClock(), settings)


def _follow_settings(
    vault: Vault | StoreError,
    options: ServeOptions,
    set_level: Callable[[LogLevel], None],
    adapt: Sequence[Callable[[EngineSettings], None]],
) -> None:
    """Go by the settings that are made at run time, those made before this start among them."""
    if isinstance(vault, StoreError):
        return

    def hear(settings: RunSettings) -> None:
        set_level(settings.log_level or options.log_level)
        for follow in adapt:
            follow(_engine_settings(settings.engine, options))

    vault.settings.listen(hear)
    hear(vault.settings.current)


def _engine_settings(settings: EngineSettings, options: ServeOptions) -> EngineSettings:
    """Return how engines are looked for once the command line had its say."""
    return settings if options.detect is None else replace(settings, detect=options.detect)


def _runtimes(folder: Path, docker: DockerSettings, stack: AsyncExitStack) -> Mapping[RuntimeKind, Runtime]:
    """Build every runtime; none does anything before it is asked."""
    processes = ProcessRuntime(folder / "process", owner=str(folder))
    stack.push_async_callback(processes.close)
    gpus = find_nvidia()
    containers = DockerRuntime(
        docker,
        owner_id(folder),
        VERSION,
        container=own_container(),
        gpu_memory=gpus.used_by if gpus else None,
    )
    stack.push_async_callback(containers.close)
    return {
        RuntimeKind.PROCESS: processes,
        RuntimeKind.DOCKER: containers,
        RuntimeKind.EXTERNAL: ExternalRuntime(),
    }


async def _close(plane: ControlPlane, gateway: Gateway) -> None:
    """End the data plane first: the services have then nothing left to do."""
    plane.scheduler.close()
    await gateway.close()
    await plane.close()


def _overridden(settings: ServerSettings, options: ServeOptions) -> ServerSettings:
    return replace(
        settings,
        host=settings.host if options.host is None else options.host,
        port=settings.port if options.port is None else options.port,
    )


def _loader(
    path: Path | None, config: Config, options: ServeOptions
) -> Callable[[], "asyncio.Future[tuple[Sequence[Service], tuple[str, ...]]]"] | None:
    """Return what reads the configuration again, for a reload; None without a file."""
    if path is None:
        return None
    running = _overridden(server_settings(config), options)

    def load() -> tuple[Sequence[Service], tuple[str, ...]]:
        fresh = load_config(path, os.environ)
        settings = _overridden(server_settings(fresh), options)
        changed = [f.name for f in fields(settings) if getattr(settings, f.name) != getattr(running, f.name)]
        sections = [name for name in RESTART if getattr(fresh, name) != getattr(config, name)]
        return build_services(fresh), (*(f"server.{name}" for name in changed), *sections)

    return lambda: asyncio.get_running_loop().run_in_executor(None, load)


async def _listen(
    gateway: Gateway, settings: ServerSettings, tls: ssl.SSLContext | None, addresses: Addresses
) -> int:
    """Bind every public address; return the port of the first."""
    host = settings.host
    port = await _bind(gateway, host, settings.port, OPENAI, tls)
    addresses.http = local_url(host, port, tls=tls is not None)
    if settings.ollama_port is not None:
        ollama_port = await _bind(gateway, host, settings.ollama_port, OLLAMA, tls)
        addresses.ollama = local_url(host, ollama_port, tls=tls is not None)
        logger.info("in the place of Ollama on {}", addresses.ollama)
    return port


async def _bind(gateway: Gateway, host: str, port: int, front: Front, tls: ssl.SSLContext | None) -> int:
    try:
        return await gateway.listen(host, port, tls, front)
    except OSError as error:
        setting = "--host and --port" if front is OPENAI else "server.ollama_port"
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with {setting}"
        ) from error


def _handle_signals(plane: ControlPlane, gateway: Gateway) -> asyncio.Event:
    """Return an event that is set when the proxy is to end; a second signal ends it without patience."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def end() -> None:
        if stop.is_set():
            gateway.abort()
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, end)
    loop.add_signal_handler(signal.SIGHUP, lambda: spawn(_reload(plane), "reload on SIGHUP"))
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


def _announce(addresses: Addresses, path: Path | None, services: int, guard: Guard) -> None:
    if isinstance(guard, KeyGuard):
        whoever = (
            "clients need an API key"
            if guard.asks_for_keys
            else "there is no API key: whoever reaches the proxy may use it"
        )
        logger.log("WARNING" if guard.is_open_to_others else "INFO", "{}", whoever)
    logger.info(
        "serving {} services on {} (configuration: {}; API documentation: {}/docs)",
        services,
        addresses.http,
        path or "none",
        addresses.http,
    )
