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
from importlib.metadata import version
from pathlib import Path

import aiohttp
from loguru import logger

from ai_proxy import rundir
from ai_proxy.api.application import create_app
from ai_proxy.api.door import client_principal, owner_principal
from ai_proxy.api.server import serve_unix
from ai_proxy.config.build import build_services, server_settings
from ai_proxy.config.load import find_config, load_config
from ai_proxy.config.schema import Config
from ai_proxy.control.plane import ControlPlane
from ai_proxy.control.timing import SystemClock
from ai_proxy.core.errors import ProxyError
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State
from ai_proxy.core.options import ServeOptions
from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import RuntimeKind, Service, Upstream
from ai_proxy.core.settings import ServerSettings
from ai_proxy.engines.catalog import build_engines
from ai_proxy.gateway.listener import Gateway
from ai_proxy.identity import owner_id
from ai_proxy.resources.nvidia import find_nvidia
from ai_proxy.runtimes.docker import DockerRuntime, own_container
from ai_proxy.runtimes.external import ExternalRuntime
from ai_proxy.runtimes.process import ProcessRuntime
from ai_proxy.tasks import cancel, spawn
from ai_proxy.telemetry.logs import configure
from ai_proxy.telemetry.prometheus import PrometheusRecorder

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
        recorder = PrometheusRecorder(version("ai-inference-proxy"))
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, auto_decompress=False)
        )
        plane = ControlPlane(SystemClock(), _runtimes(folder, stack), build_engines(session), recorder)
        gateway = Gateway(
            plane.scheduler,
            recorder,
            settings.limits,
            Upstream("localhost", 80, unix_path=str(folder / "gateway.sock")),
        )
        stack.push_async_callback(_close, plane, gateway)
        plane.publish = gateway.publish
        plane.events.listen(EventLog())
        plane.load = _loader(path, config, options)
        app = create_app(plane, lambda: recorder.render(plane.services()), version("ai-inference-proxy"))
        await stack.enter_async_context(serve_unix(app, folder / "gateway.sock", client_principal))
        port = await _listen(gateway, settings)  # before anything is adopted: a failure must not end it
        await plane.open(build_services(config))
        await gateway.accept()
        await stack.enter_async_context(serve_unix(app, folder / "control.sock", owner_principal))
        stop = _handle_signals(plane, gateway)
        if settings.watch and path is not None:
            watcher = spawn(_watch(path, plane), "watch configuration")
            stack.push_async_callback(cancel, watcher)
        _announce(settings.host, port, path, len(plane.services()))
        _settle_memory()
        await stop.wait()
        in_flight = sum(view.in_flight for view in plane.services())
        patience = f"at most {settings.limits.shutdown_timeout:g} s; Ctrl-C again ends them"
        logger.info("stopping: {} requests in flight{}", in_flight, f", {patience}" if in_flight else "")
        await _close(plane, gateway)


def _runtimes(folder: Path, stack: AsyncExitStack) -> Mapping[RuntimeKind, Runtime]:
    """Build every runtime; none does anything before it is asked."""
    processes = ProcessRuntime(folder / "process", owner=str(folder))
    stack.push_async_callback(processes.close)
    gpus = find_nvidia()
    containers = DockerRuntime(
        None,
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
        return build_services(fresh), tuple(f"server.{name}" for name in changed)

    return lambda: asyncio.get_running_loop().run_in_executor(None, load)


async def _listen(gateway: Gateway, settings: ServerSettings) -> int:
    try:
        return await gateway.listen(settings.host, settings.port)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
            "choose another with --host and --port"
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
