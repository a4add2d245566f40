"""The composition root: builds everything, in order, and takes it down again in reverse."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from loguru import logger

from ai_proxy import rundir
from ai_proxy.api.application import create_app
from ai_proxy.api.deps import Addresses, Requests, local_url
from ai_proxy.api.door import client_principal, owner_principal
from ai_proxy.api.server import serve_unix
from ai_proxy.config.build import build_services, engine_settings, server_settings, telemetry_settings
from ai_proxy.config.detected import detected_services
from ai_proxy.config.load import find_config, load_config
from ai_proxy.config.schema import Config
from ai_proxy.control.discovery import Discovery, forget_changed
from ai_proxy.control.places import own_places
from ai_proxy.control.plane import ControlPlane
from ai_proxy.control.timing import SystemClock
from ai_proxy.core.detection import Spot, spot
from ai_proxy.core.errors import ProxyError
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State
from ai_proxy.core.options import ServeOptions
from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import RuntimeKind, Service, Upstream
from ai_proxy.core.settings import DockerSettings, ServerSettings
from ai_proxy.engines.cache import MemoryCache
from ai_proxy.engines.catalog import build_engines
from ai_proxy.engines.detect import Detector
from ai_proxy.gateway.entries import OLLAMA, OPENAI, Front
from ai_proxy.gateway.listener import Gateway
from ai_proxy.identity import owner_id
from ai_proxy.resources.nvidia import find_nvidia
from ai_proxy.runtimes.docker import DockerRuntime
from ai_proxy.runtimes.docker_place import own_container
from ai_proxy.runtimes.external import ExternalRuntime
from ai_proxy.runtimes.process import ProcessRuntime
from ai_proxy.tasks import cancel, spawn
from ai_proxy.telemetry.logs import configure
from ai_proxy.telemetry.telemetry import open_telemetry

OPEN_FILES = 65_536
"""Open files asked of the system: two per request in flight."""
GC_THRESHOLDS = (10_000, 20, 50)
"""Collect less often than the default: the data plane makes garbage, but next to no cycles."""


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
    configure(options.log_level, options.log_format, options.log_file)
    path = find_config(options.config, os.environ, Path.cwd())
    config = load_config(path, os.environ) if path else Config()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(options, path, config))
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory, or None for asyncio's own loop where there is no uvloop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(options: ServeOptions, path: Path | None, config: Config) -> None:
    settings = _overridden(server_settings(config), options)
    _raise_file_limit()
    async with AsyncExitStack() as stack:
        folder = rundir.create_instance_folder(rundir.base_folder(options.run_dir), settings.port)
        stack.enter_context(rundir.lock_instance(folder))
        telemetry = await stack.enter_async_context(
            open_telemetry(
                telemetry_settings(config),
                os.environ,
                version("ai-inference-proxy"),
                settings.host,
                SystemClock(),
            )
        )
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, auto_decompress=False)
        )
        runtimes = _runtimes(folder, settings.docker, stack)
        plane = ControlPlane(SystemClock(), runtimes, build_engines(session), telemetry.recorder)
        gateway = Gateway(
            plane.scheduler,
            telemetry.recorder,
            settings.limits,
            Upstream("localhost", 80, unix_path=str(folder / "gateway.sock")),
        )
        gateway.tracing = telemetry.tracing
        stack.push_async_callback(_close, plane, gateway)
        plane.publish = gateway.publish
        plane.events.listen(EventLog())
        telemetry.watch(plane.services, plane.events.listen)
        plane.load = _loader(path, config, options)
        requests = Requests(telemetry.recent.newest, gateway.live)
        addresses = Addresses()
        detector = _detector(session, plane, addresses, config)
        plane.events.listen(forget_changed(plane, detector))
        app = create_app(
            plane, telemetry.metrics, version("ai-inference-proxy"), addresses, requests, detector
        )
        await stack.enter_async_context(serve_unix(app, folder / "gateway.sock", client_principal))
        # Before anything is adopted: a failure must not end it.
        port = await _listen(gateway, settings.host, settings.port, OPENAI)
        addresses.http = local_url(settings.host, port)
        if settings.ollama_port is not None:
            ollama_port = await _listen(gateway, settings.host, settings.ollama_port, OLLAMA)
            addresses.ollama = local_url(settings.host, ollama_port)
            logger.info("in the place of Ollama on {}", addresses.ollama)
        await plane.open(build_services(config))
        await gateway.accept()
        await stack.enter_async_context(serve_unix(app, folder / "control.sock", owner_principal))
        stop = _handle_signals(plane, gateway)
        if settings.watch and path is not None:
            watcher = spawn(_watch(path, plane), "watch configuration")
            stack.push_async_callback(cancel, watcher)
        _announce(settings.host, port, path, len(plane.services()))
        _settle_memory()
        discovery = _discover(detector, plane, config, options)
        stack.push_async_callback(cancel, discovery)
        await stop.wait()
        await cancel(discovery)
        in_flight = sum(view.in_flight for view in plane.services())
        patience = f"at most {settings.limits.shutdown_timeout:g} s; Ctrl-C again ends them"
        logger.info("stopping: {} requests in flight{}", in_flight, f", {patience}" if in_flight else "")
        await _close(plane, gateway)


def _detector(
    session: aiohttp.ClientSession, plane: ControlPlane, addresses: Addresses, config: Config
) -> Detector:
    """Build what finds engines; it leaves out the proxy itself and what that runs."""

    def owners() -> Mapping[Spot, str]:
        ours = (urlsplit(url) for url in (addresses.http, addresses.ollama) if url)
        listeners = {spot(one.hostname or "", one.port or 80): "ai-proxy itself" for one in ours}
        return {**own_places(plane.runs()), **listeners}

    clock, settings = SystemClock(), engine_settings(config)
    return Detector(session, clock, MemoryCache(clock, settings.cache_ttl), settings, os.environ, owners)


def _discover(
    detector: Detector, plane: ControlPlane, config: Config, options: ServeOptions
) -> asyncio.Task[None] | None:
    """Begin to offer the engines that run by themselves, unless that is not wanted."""
    settings = engine_settings(config)
    if not (settings.detect if options.detect is None else options.detect):
        return None
    declare = partial(detected_services, config)
    discovery = Discovery(plane, detector, declare, SystemClock(), settings.cache_ttl)
    return spawn(discovery.run(), "discover engines")


def _runtimes(folder: Path, docker: DockerSettings, stack: AsyncExitStack) -> Mapping[RuntimeKind, Runtime]:
    """Build every runtime; none does anything before it is asked."""
    processes = ProcessRuntime(folder / "process", owner=str(folder))
    stack.push_async_callback(processes.close)
    gpus = find_nvidia()
    containers = DockerRuntime(
        docker,
        owner_id(folder),
        version("ai-inference-proxy"),
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
        telemetry = ["telemetry"] if telemetry_settings(fresh) != telemetry_settings(config) else []
        engine = ["engine"] if engine_settings(fresh) != engine_settings(config) else []
        return build_services(fresh), (*(f"server.{name}" for name in changed), *telemetry, *engine)

    return lambda: asyncio.get_running_loop().run_in_executor(None, load)


async def _listen(gateway: Gateway, host: str, port: int, front: Front) -> int:
    try:
        return await gateway.listen(host, port, front=front)
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


class EventLog:
    """Logs what happens to services; a failure that repeats is told once, until the service is ready."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def __call__(self, event: ServiceEvent) -> None:
        """Log an event."""
        bound = logger.bind(service=event.service_id)
        bound.log(self._level(event), "{} is {}: {}", event.service_id, event.state, event.reason)

    def _level(self, event: ServiceEvent) -> str:
        told = self._told.get(event.service_id)
        if event.state in (State.FAILING, State.FAILED):
            self._told[event.service_id] = event.reason
            return "DEBUG" if told == event.reason else "WARNING"
        if event.event is Event.ABSENT or (told and event.state in (State.STARTING, State.LOADING)):
            return "DEBUG"
        self._told.pop(event.service_id, None)
        return "INFO"


def _announce(host: str, port: int, path: Path | None, services: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    if not host.startswith("127.") and host not in ("localhost", "::1"):
        logger.warning("listening on {} without authentication: whoever reaches it may use it", shown)
    logger.info(
        "serving {} services on http://{}:{} (configuration: {}; API documentation: http://{}:{}/docs)",
        services,
        shown,
        port,
        path or "none",
        shown,
        port,
    )


def _raise_file_limit() -> None:
    """Ask for as many open files as many connections need, and let the kernel make room for them now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # The kernel's table of open files doubles as it fills, and everything waits while it is copied.
    with contextlib.suppress(OSError):
        os.close(os.dup2(sys.stderr.fileno(), min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) - 1))


def _settle_memory() -> None:
    """Keep what was built at start out of every later garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
