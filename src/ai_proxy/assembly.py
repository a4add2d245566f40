"""Builds the parts of a proxy from its configuration, and ties them together; nothing is served yet."""

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from loguru import logger

from ai_proxy.api.lazy import Application, LazyApplication
from ai_proxy.api.monitoring import monitoring_endpoints
from ai_proxy.config.build import (
    build_services,
    detected_services,
    engine_settings,
    security_settings,
    server_settings,
    telemetry_settings,
)
from ai_proxy.config.load import load_config
from ai_proxy.config.schema import Config
from ai_proxy.control.discovery import Discovery, forget_changed
from ai_proxy.control.holds import Holds
from ai_proxy.control.listen_addresses import own_addresses
from ai_proxy.control.plane import ControlPlane
from ai_proxy.core.detection import SocketAddress, socket_address
from ai_proxy.core.errors import ProxyError, StoreError, StoreUnavailableError
from ai_proxy.core.options import LogLevel, ServeOptions
from ai_proxy.core.policy import is_exposed
from ai_proxy.core.ports import Runtime
from ai_proxy.core.run_settings import RunSettings
from ai_proxy.core.service import Service, Upstream
from ai_proxy.core.settings import EngineSettings, SecuritySettings, ServerSettings, within_open_files
from ai_proxy.engines.catalog import find_engines
from ai_proxy.engines.detect.detector import Detector, MemoryCache
from ai_proxy.engines.http import create_engines
from ai_proxy.gateway.guard import ClosedGuard, KeyGuard
from ai_proxy.gateway.listener import Gateway
from ai_proxy.instances.announcement import Announcement, announced
from ai_proxy.instances.background import drain_time
from ai_proxy.instances.state import ProxyState, open_state
from ai_proxy.instances.state_opener import RETRY, StateOpener
from ai_proxy.platform.addresses import Addresses
from ai_proxy.platform.clock import SystemClock
from ai_proxy.platform.data_folder import owner_id
from ai_proxy.platform.process import settle_memory
from ai_proxy.platform.tasks import Background, Restarts
from ai_proxy.resources.nvidia import find_nvidia
from ai_proxy.runtimes.base import RuntimeContext
from ai_proxy.runtimes.catalog import find_runtimes
from ai_proxy.telemetry.logs import EventLog
from ai_proxy.telemetry.telemetry import Telemetry, open_telemetry

VERSION = version("ai-inference-proxy")
CLIENT_SOCKET = "gateway.sock"
"""Where the gateway finds the management application, in the instance's folder."""
KEYS_UNREADABLE = StoreUnavailableError(
    "the proxy cannot read its API keys and refuses all requests until it can; its log says why",
    retry_after=RETRY,
)
"""The answer to every client until the store can be used."""
RESTART = ("engine", "telemetry", "tls", "store", "security")
"""Sections of the configuration that take effect when the proxy is restarted."""


class ListenError(ProxyError):
    """The address cannot be listened on."""

    code, title = "cannot_listen", "Cannot listen"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a proxy is made of.

    Attributes:
        background: Owns the work that goes on as long as the proxy does.
        settings: How it is to behave, once the command line had its say.
        state: Opens what it keeps across restarts.
        announcement: Announces this proxy to others.
        telemetry: Measures.
        plane: Runs the services.
        gateway: Serves clients.
        addresses: Where they do; filled in when it listens.
        detector: Finds engines.
        discovery: Offers those that run by themselves.
    """

    background: Background
    settings: ServerSettings
    state: StateOpener
    announcement: Announcement
    telemetry: Telemetry
    plane: ControlPlane
    gateway: Gateway
    addresses: Addresses
    detector: Detector
    discovery: Discovery


async def assemble(
    stack: AsyncExitStack,
    background: Background,
    options: ServeOptions,
    path: Path | None,
    config: Config,
    folder: Path,
    set_level: Callable[[LogLevel], None],
) -> Parts:
    """Build everything, in order.

    Args:
        stack: Takes it down again in reverse.
        background: Owns the work that goes on as long as the proxy does.
        options: What the command line says.
        path: Of the configuration file; None without one.
        config: What it says.
        folder: Of this instance.
        set_level: Changes how much is logged.

    Raises:
        ListenError: It would be open to everybody.
    """
    settings = _within_open_files(overridden_settings(config, options))
    stack.push_async_callback(background.close)
    clock = SystemClock()
    opener = await stack.enter_async_context(
        StateOpener(lambda: open_state(config, clock, background=background), clock, background)
    )
    opened = await opener.open()
    if opened is not None:
        _check_exposure(opened, security_settings(config), settings.host)
    announcement = await stack.enter_async_context(announced(background))
    telemetry = await stack.enter_async_context(
        open_telemetry(
            telemetry_settings(config), os.environ, VERSION, settings.host, SystemClock(), background
        )
    )
    connector = aiohttp.TCPConnector(limit=0)
    session = await stack.enter_async_context(
        aiohttp.ClientSession(connector=connector, auto_decompress=False)
    )
    gpus = find_nvidia()
    context = RuntimeContext(
        folder, owner_id(folder), VERSION, settings.docker, background, gpus.used_by if gpus else None
    )
    runtimes = await _open_runtimes(context, stack)
    plane = ControlPlane(
        SystemClock(),
        runtimes,
        create_engines(find_engines().values(), session),
        telemetry.recorder,
        background,
        holds=Holds(opened.store.settings, context.owner) if opened is not None else None,
    )
    management = Upstream("localhost", 80, unix_path=str(folder / CLIENT_SOCKET))
    gateway = Gateway(plane.scheduler, telemetry.recorder, settings.limits, management, background)
    gateway.shared.tracing = telemetry.tracing
    gateway.protect(ClosedGuard(KEYS_UNREADABLE))
    stack.push_async_callback(close, plane, gateway)
    plane.offers_changed.add(gateway.publish)
    plane.events.listen(EventLog())
    telemetry.watch(plane.services, plane.events.listen)
    plane.load = _loader(path, config, options, announcement)
    addresses = Addresses()
    detector = _detector(session, plane, addresses, config, opened)
    looking = _engine_settings(engine_settings(config), options)
    discovery = Discovery(plane, detector, partial(detected_services, config), SystemClock(), looking)
    plane.events.listen(forget_changed(plane, detector, background))

    def use(state: ProxyState) -> None:
        telemetry.listen(state.security.usage.note_all)
        announcement.keep_in(state.store.instances)
        _follow_settings(state, options, set_level, (detector.adapt, discovery.adapt))
        exposed = is_exposed(settings.host)
        gateway.protect(KeyGuard(state.security, security_settings(config), clock, exposed=exposed))

    opener.when_open(use)
    return Parts(
        background,
        settings,
        opener,
        announcement,
        telemetry,
        plane,
        gateway,
        addresses,
        detector,
        discovery,
    )


def management(parts: Parts) -> LazyApplication:
    """Return the management application; the first request that needs it imports what it is made of."""

    def restarts() -> Mapping[str, Restarts]:
        return parts.background.restarts

    def stored() -> ProxyState | StoreError:
        return parts.state.current

    def build() -> Application:
        from ai_proxy.api.application import create_app
        from ai_proxy.api.deps import Context, Requests

        requests = Requests(parts.telemetry.recent, parts.gateway.live)
        plane, metrics, addresses = parts.plane, parts.telemetry.metrics, parts.addresses
        context = Context(plane, metrics, VERSION, addresses, requests, parts.detector, stored, restarts)
        app = create_app(context)
        settle_memory()
        return app

    endpoints = monitoring_endpoints(VERSION, parts.plane.services, restarts, parts.telemetry.metrics)
    return LazyApplication(build, endpoints)


def _within_open_files(settings: ServerSettings) -> ServerSettings:
    """Return settings whose connections fit the limit of open files; warn when it lowers them by a tenth."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return settings
    possible = replace(settings, limits=within_open_files(settings.limits, files))
    if possible.limits.max_connections < 0.9 * settings.limits.max_connections:
        logger.warning(
            "only {} files may be open at once, so at most {} clients can connect instead of {};"
            " raise the limit with 'ulimit -n', or with LimitNOFILE= in the systemd unit",
            files,
            possible.limits.max_connections,
            settings.limits.max_connections,
        )
    return possible


async def close(plane: ControlPlane, gateway: Gateway) -> None:
    """End the data plane first: the services have then nothing left to do."""
    plane.scheduler.close()
    await gateway.close()
    await plane.close()


def overridden_settings(config: Config, options: ServeOptions) -> ServerSettings:
    """Return how the proxy is to behave once the command line had its say."""
    settings = server_settings(config)
    return replace(
        settings,
        host=settings.host if options.host is None else options.host,
        port=settings.port if options.port is None else options.port,
    )


def _check_exposure(state: ProxyState, settings: SecuritySettings, host: str) -> None:
    """Refuse to serve everybody unless the configuration allows it.

    Raises:
        ListenError: Everybody who can reach the listeners could use the proxy.
    """
    if is_exposed(host) and not (settings.allow_unauthenticated or state.security.keys.has_keys):
        raise ListenError(
            f"{host} can be reached from other machines, and there is no API key yet: make one first with "
            "'ai-proxy api-keys create', listen on 127.0.0.1, or say security.allow_unauthenticated: true"
        )


def _detector(
    session: aiohttp.ClientSession,
    plane: ControlPlane,
    addresses: Addresses,
    config: Config,
    state: ProxyState | None,
) -> Detector:
    """Build what finds engines; it leaves out the proxy itself and what that runs."""

    def owners() -> Mapping[SocketAddress, str]:
        ours = (urlsplit(url) for url in (addresses.http, addresses.ollama) if url)
        listeners = {socket_address(one.hostname or "", one.port or 80): "ai-proxy itself" for one in ours}
        return {**own_addresses(plane.owned()), **listeners}

    clock, settings = SystemClock(), engine_settings(config)
    ttl = settings.cache_ttl
    cache = MemoryCache(clock, ttl) if state is None else state.store.engine_cache(clock, ttl)
    return Detector(find_engines().values(), session, clock, cache, settings, os.environ, owners)


def _follow_settings(
    state: ProxyState,
    options: ServeOptions,
    set_level: Callable[[LogLevel], None],
    adapt: Sequence[Callable[[EngineSettings], None]],
) -> None:
    """Go by the settings that are made at run time, those made before this start among them."""

    def hear(settings: RunSettings) -> None:
        set_level(settings.log_level or options.log_level)
        for follow in adapt:
            follow(_engine_settings(settings.engine, options))

    state.settings.listen(hear)
    hear(state.settings.current)


def _engine_settings(settings: EngineSettings, options: ServeOptions) -> EngineSettings:
    """Return how engines are looked for once the command line had its say."""
    return settings if options.detect is None else replace(settings, detect=options.detect)


async def _open_runtimes(context: RuntimeContext, stack: AsyncExitStack) -> Mapping[str, Runtime]:
    """Open every runtime; none asks anything of the outside world before its first use."""
    opened: dict[str, Runtime] = {}
    for name, descriptor in find_runtimes().items():
        try:
            opened[name] = await stack.enter_async_context(descriptor.open(context))
        except Exception as error:  # noqa: BLE001 - the services of the other runtimes must go on
            logger.opt(exception=error).error("cannot open the runtime {}; its services cannot start", name)
    return opened


def _loader(
    path: Path | None, config: Config, options: ServeOptions, announcement: Announcement
) -> Callable[[], Awaitable[tuple[Sequence[Service], tuple[str, ...]]]] | None:
    """Return what reads the configuration again, for a reload; None without a file."""
    if path is None:
        return None
    running = overridden_settings(config, options)

    def load() -> tuple[Sequence[Service], tuple[str, ...]]:
        fresh = load_config(path, os.environ)
        settings = overridden_settings(fresh, options)
        changed = [f.name for f in fields(settings) if getattr(settings, f.name) != getattr(running, f.name)]
        sections = [name for name in RESTART if getattr(fresh, name) != getattr(config, name)]
        return build_services(fresh), (*(f"server.{name}" for name in changed), *sections)

    async def load_in_thread() -> tuple[Sequence[Service], tuple[str, ...]]:
        services, sections = await asyncio.to_thread(load)
        announcement.ends_within(drain_time(running.limits, services))
        return services, sections

    return load_in_thread
