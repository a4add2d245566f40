"""`ai-proxy proxy`: runs proxies in the background."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai_proxy.cli.output import ConfigOption, FormatOption, RunDirOption, UserError, say, show, spinner
from ai_proxy.cli.serve import (
    AcmeDomainsOption,
    AcmeEmailOption,
    DetectOption,
    HostOption,
    LogFormatOption,
    LogLevelOption,
    chosen_level,
)
from ai_proxy.core.options import LogFormat, LogLevel, ProxyMode, ServeOptions
from ai_proxy.core.store_ports import Instance, InstanceStore

if TYPE_CHECKING:
    from ai_proxy.config.schema import Config

app = typer.Typer(help="Run proxies in the background.", no_args_is_help=True)


@app.command()
def start(
    ctx: typer.Context,
    *,
    mode: Annotated[
        ProxyMode | None, typer.Option(help="Plain HTTP, or the source of the certificate.")
    ] = None,
    host: HostOption = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="TCP port; 0 for the configured one.")
    ] = None,
    acme_domain: AcmeDomainsOption = None,
    acme_email: AcmeEmailOption = None,
    config: ConfigOption = None,
    no_daemon: Annotated[
        bool, typer.Option("--no-daemon", help="Serve in the foreground until Ctrl-C or SIGTERM.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Longest wait for the start, in seconds.")
    ] = 120,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    run_dir: RunDirOption = None,
    detect: DetectOption = None,
    output: FormatOption = None,
) -> None:
    """Start a proxy in the background and wait until it responds."""
    options = ServeOptions(
        config=config,
        host=host,
        port=port or None,
        log_level=chosen_level(ctx, log_level),
        log_format=log_format,
        run_dir=run_dir,
        detect=detect,
        tls_mode=mode.tls if mode else None,
        acme_domains=tuple(acme_domain or ()),
        acme_email=acme_email,
    )
    if no_daemon:
        from ai_proxy.app import serve

        raise typer.Exit(serve(options))
    instance, log = _start(options, timeout)
    data = {**as_data(instance, "running"), "log": str(log)}
    show(ctx, output, data, lambda: say(started(instance, log)))


def _start(options: ServeOptions, patience: float) -> tuple[Instance, Path]:
    """Start a proxy; if the start fails, leave nothing running."""
    import asyncio

    from ai_proxy.config.build import server_settings
    from ai_proxy.instances.background import give_up, launch, log_path, until_answering
    from ai_proxy.platform.data_folder import data_folder

    settings = _configuration(options.config)
    log = log_path(data_folder().absolute(), options.port or server_settings(settings).port)
    launched = launch(replace(options, log_file=log), log)
    try:
        with spinner("starting the proxy"):
            instance = asyncio.run(until_answering(launched, _instances(settings), patience))
    except BaseException:
        give_up(launched)
        raise
    return instance, log


def started(instance: Instance, log: Path) -> str:
    """Return the message about a started proxy."""
    lines = [f"proxy {instance.id} is running (pid {instance.pid}, {instance.mode})"]
    lines += [f"  {url}" for url in instance.endpoints]
    if instance.mode == ProxyMode.DEV_SELFSIGNED:
        lines.append("clients must trust the local CA; 'ai-proxy tls trust' shows how")
    lines += [f"log: {log}", f"stop it with: ai-proxy proxy stop --port {instance.port}"]
    return "\n".join(lines)


@app.command()
def stop(
    ctx: typer.Context,
    *,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the proxy.")] = None,
    proxy_id: Annotated[
        str | None, typer.Option("--id", help="Id of the proxy, as 'status' shows it.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Stop all proxies on this machine.")] = False,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Stop a proxy; requests in flight finish within the configured time."""
    import asyncio

    from ai_proxy.config.build import build_services, server_settings
    from ai_proxy.instances.background import drain_time

    settings = _configuration_or_default(config)
    store = _instances(settings)
    otherwise = drain_time(server_settings(settings).limits, build_services(settings))

    async def end() -> list[dict[str, Any]]:
        return await _end_all(store, choose(await store.all(), port, proxy_id, every=every), otherwise)

    with spinner("stopping when requests in flight have finished"):
        ended = asyncio.run(end())
    show(ctx, output, ended, lambda: say("\n".join(map(stopped, ended)) or none_runs(port, proxy_id)))


def choose(
    instances: Sequence[Instance], port: int | None, proxy_id: str | None, *, every: bool
) -> list[Instance]:
    """Return the instances to stop; dead ones only when no other matches.

    Raises:
        UserError: The proxy runs on another machine, or several run and none was chosen.
    """
    from ai_proxy.instances.status import is_here, process_of

    chosen = [one for one in instances if port in (None, one.port) and proxy_id in (None, one.id)]
    here = [one for one in chosen if is_here(one)]
    if proxy_id is not None and chosen and not here:
        raise UserError(f"proxy {proxy_id} runs on {chosen[0].machine}; stop it there", "elsewhere")
    alive = [one for one in here if process_of(one) is not None]
    if len(alive) > 1 and not every:
        ports = ", ".join(str(one.port) for one in alive)
        raise UserError(
            f"several proxies run, on ports {ports}; choose one with --port or --id, or all with --all",
            "several_running",
        )
    return alive or here


async def _end_all(
    store: InstanceStore, instances: Sequence[Instance], otherwise: float
) -> list[dict[str, Any]]:
    """End proxies, each within its own time; those of earlier versions within another, in seconds."""
    import asyncio

    from ai_proxy.instances.background import end

    limits = [instance.stop_within or otherwise for instance in instances]
    outcomes = await asyncio.gather(*map(end, instances, limits))
    left = {instance.id for instance in await store.all()}  # a proxy that stops drops its own record
    for instance in instances:
        if instance.id in left:
            await _forget(store, instance)
    return [
        {"id": instance.id, "pid": instance.pid, "port": instance.port, "outcome": outcome, "limit": limit}
        for instance, outcome, limit in zip(instances, outcomes, limits, strict=True)
    ]


async def _forget(store: InstanceStore, instance: Instance) -> None:
    """Drop the record of a proxy that has ended; where the store cannot be written, the next command does."""
    from loguru import logger

    from ai_proxy.core.errors import StoreError

    try:
        await store.drop(instance.id)
    except StoreError as error:
        logger.warning("the record of proxy {}, which has ended, cannot be removed: {}", instance.id, error)


def stopped(ended: Mapping[str, Any]) -> str:
    """Return the message about a stopped proxy.

    >>> stopped({"id": "3f2a91bc", "pid": 4242, "port": 11000, "outcome": "stopped", "limit": 45.0})
    'proxy 3f2a91bc on port 11000 has stopped'
    """
    outcomes = {
        "stopped": "has stopped",
        "killed": f"did not stop within {ended['limit']:g} s and was killed; its services may still be"
        " running, and the next proxy adopts them",
        "dead": "was not running",
    }
    return f"proxy {ended['id']} on port {ended['port']} {outcomes[ended['outcome']]}"


def none_runs(port: int | None, proxy_id: str | None) -> str:
    """Return the message for nothing to stop.

    >>> none_runs(None, None), none_runs(11001, None)
    ('no proxy is running', 'no proxy is running on port 11001')
    """
    where = "" if port is None else f" on port {port}"
    return f"no proxy is running{where}{'' if proxy_id is None else f' with the id {proxy_id}'}"


@app.command()
def status(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """List the proxies and their states; a dead one is listed once."""
    import asyncio

    from ai_proxy.cli.tables import print_proxies

    found = asyncio.run(_list_proxies(_instances(_configuration_or_default(config))))
    show(ctx, output, found, lambda: print_proxies(found))


async def _list_proxies(store: InstanceStore) -> list[dict[str, Any]]:
    """Return every proxy with its state, and drop the records of dead ones."""
    import asyncio

    from ai_proxy.instances.status import InstanceStatus, status_of

    instances = await store.all()
    statuses = await asyncio.gather(*map(status_of, instances))
    for instance, how in zip(instances, statuses, strict=True):
        if how is InstanceStatus.DEAD:
            await _forget(store, instance)
    return [as_data(instance, how) for instance, how in zip(instances, statuses, strict=True)]


def as_data(instance: Instance, state: str) -> dict[str, Any]:
    """Return a proxy as scripts get it; durations in seconds."""
    dead = state == "dead"
    return {
        "id": instance.id,
        "state": state,
        "machine": instance.machine,
        "pid": instance.pid,
        "host": instance.host,
        "port": instance.port,
        "mode": instance.mode,
        "endpoints": list(instance.endpoints),
        "uptime": None if dead else round(max(0.0, time.time() - instance.started), 1),
        "last_error": instance.last_error,
    }


def _configuration(chosen: Path | None) -> "Config":
    from ai_proxy.config.load import configuration

    return configuration(chosen, os.environ)[1]


def _configuration_or_default(chosen: Path | None) -> "Config":
    """Return the configuration for a command that must work whatever somebody made of the file meanwhile."""
    from ai_proxy.config.schema import Config
    from ai_proxy.core.errors import InvalidConfigError

    try:
        return _configuration(chosen)
    except InvalidConfigError:
        typer.echo(
            "warning: the configuration has errors ('ai-proxy config check' lists them), so this command uses"
            " the store in the data directory",
            err=True,
        )
        return Config()


def _instances(config: "Config") -> InstanceStore:
    from ai_proxy.config.build import store_url
    from ai_proxy.persistence.quick_instances import QuickInstances
    from ai_proxy.platform.data_folder import data_folder
    from ai_proxy.telemetry.logs import configure

    configure(LogLevel.WARNING)
    return QuickInstances(store_url(config), data_folder().absolute())
