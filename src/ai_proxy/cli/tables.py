"""Tables for people."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ai_proxy.control.run_settings import Setting, written
from ai_proxy.core.key_facts import KeyFacts, limits
from ai_proxy.core.limits import Allowance
from ai_proxy.core.store_ports import Usage

COLOURS = {
    "ready": "green",
    "starting": "yellow",
    "loading": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "failing": "red",
    "failed": "red",
}
"""Of states; the others have none."""

PIPE_WIDTH = 250
"""Columns where nobody looks: wide enough to cut nothing."""

NOTHING_CONFIGURED = "no services are configured; 'ai-proxy config init' writes an example"


def span(seconds: float) -> str:
    """Return a duration in its two largest units.

    >>> [span(s) for s in (-1, 8.4, 200, 7500, 360_000)]
    ['0s', '8s', '3m 20s', '2h 5m', '4d 4h']
    """
    rest, words = max(0, int(seconds)), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count}{unit}")
    return " ".join(words[:2]) or "0s"


def services_table(services: list[dict[str, Any]], now: float) -> Table:
    """Return the table of services.

    Args:
        services: As the server tells them.
        now: Seconds since the epoch.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("SERVICE", "STATE", "ENGINE", "RUNTIME"):
        table.add_column(name, no_wrap=True)
    table.add_column("IN FLIGHT", justify="right")
    table.add_column("WAITING", justify="right")
    for name in ("CPU", "MEMORY"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("ADDRESS", "SINCE", "STOPS IN"):
        table.add_column(name, no_wrap=True)
    table.add_column("REASON", overflow="fold")
    for one in services:
        idle = one["idle_stop_in"]
        table.add_row(
            one["id"],
            Text(one["state"], style=COLOURS.get(one["state"], "")),
            one["engine"],
            one["runtime"],
            str(one["in_flight"]),
            str(one["waiting"]),
            *usage(one["stats"]),
            " ".join(one["upstreams"]) or "-",
            span(now - one["since"]),
            "-" if idle is None else span(idle),
            Text(one["failure"] if one["state"] == "failed" else one["reason"]),
        )
    return table


def print_services(services: list[dict[str, Any]]) -> None:
    """Print the table of services to standard output."""
    _print(services_table(services, time.time()) if services else NOTHING_CONFIGURED)


def models_table(models: list[dict[str, Any]]) -> Table:
    """Return the table of models, as the server tells them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("MODEL", overflow="fold")
    for name in ("SERVICE", "ENGINE", "STATE"):
        table.add_column(name, no_wrap=True)
    table.add_column("CONTEXT", justify="right")
    for one in models:
        context = one["context_length"]
        table.add_row(
            Text(one["name"]),
            one["service_id"],
            one["engine"],
            Text(one["state"], style=COLOURS.get(one["state"], "")),
            "-" if context is None else f"{context:,}",
        )
    return table


def print_models(models: list[dict[str, Any]]) -> None:
    """Print the table of models to standard output."""
    _print(models_table(models) if models else NOTHING_CONFIGURED)


def _print(what: Table | str) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(what)


def usage(stats: dict[str, Any] | None) -> tuple[str, str]:
    """Return CPU and memory in words, with that of GPUs where it is known.

    >>> usage({"cpu_percent": 150.2, "memory": 3_500_000_000, "gpu_memory": None}), usage(None)
    (('150 %', '3338 MB'), ('-', '-'))
    >>> usage({"cpu_percent": None, "memory": 2**30, "gpu_memory": 2**34})
    ('-', '1024 MB + 16384 MB GPU')
    """
    if stats is None:
        return "-", "-"
    cpu, gpu = stats["cpu_percent"], stats["gpu_memory"]
    memory = f"{stats['memory'] / 2**20:.0f} MB"
    return (
        "-" if cpu is None else f"{cpu:.0f} %",
        memory if gpu is None else f"{memory} + {gpu / 2**20:.0f} MB GPU",
    )


ENGINE_COLOURS = {
    "RunningHealthy": "green",
    "RunningDegraded": "yellow",
    "ErrorNetwork": "red",
    "ErrorApi": "red",
}
"""Of the states of engines; the others have none."""


def engines_table(engines: list[dict[str, Any]]) -> Table:
    """Return the table of engines that run by themselves, as the server tells them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ENGINE", "STATE", "ADDRESS", "VERSION"):
        table.add_column(name, no_wrap=True)
    for name in ("LATENCY", "MODELS"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("DETAIL", overflow="fold")
    for one in engines:
        latency = one["latency_ms"]
        table.add_row(
            one["engine"],
            Text(one["state"], style=ENGINE_COLOURS.get(one["state"], "")),
            one["address"],
            one["version"] or "-",
            "-" if latency is None else f"{latency:.0f} ms",
            str(len(one["models"])) if one["models"] else "-",
            Text(one["detail"]),
        )
    return table


def print_engines(engines: list[dict[str, Any]]) -> None:
    """Print the table of engines to standard output."""
    _print(engines_table(engines))


PROXY_COLOURS = {"running": "green", "stopping": "yellow", "not_answering": "red", "dead": "red"}
"""Of the states of proxies; the others have none."""

NO_PROXY = "no proxy is running; start one with 'ai-proxy proxy start'"


def proxies_table(proxies: list[dict[str, Any]]) -> Table:
    """Return the table of proxies."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "STATE"):
        table.add_column(name, no_wrap=True)
    for name in ("PID", "PORT"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("MODE", "UPTIME"):
        table.add_column(name, no_wrap=True)
    for name in ("ENDPOINTS", "LAST ERROR"):
        table.add_column(name, overflow="fold")
    for one in proxies:
        where = f" on {one['machine']}" if one["state"] == "elsewhere" else ""
        table.add_row(
            one["id"],
            Text(one["state"].replace("_", " ") + where, style=PROXY_COLOURS.get(one["state"], "")),
            str(one["pid"]),
            str(one["port"]),
            one["mode"],
            "-" if one["uptime"] is None else span(one["uptime"]),
            Text("\n".join(one["endpoints"]) or "-"),
            Text(one["last_error"] or "-"),
        )
    return table


def print_proxies(proxies: list[dict[str, Any]]) -> None:
    """Print the table of proxies to standard output."""
    _print(proxies_table(proxies) if proxies else NO_PROXY)


KEY_COLOURS = {"good": "green", "expired": "yellow", "revoked": "red"}
"""Of the states of API keys."""

NO_KEYS = "there are no API keys; make one with 'ai-proxy api-keys create'"
NO_USAGE = "nothing was used yet"


def keys_table(keys: Sequence[KeyFacts], now: float) -> Table:
    """Return the table of API keys.

    Args:
        keys: What is told of each.
        now: Seconds since the epoch.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ID", no_wrap=True)
    table.add_column("LABEL", overflow="fold")
    for name in ("STATE", "SCOPES"):
        table.add_column(name, no_wrap=True)
    for name in ("MODELS", "LIMITS"):
        table.add_column(name, overflow="fold")
    for name in ("EXPIRES", "LAST USED"):
        table.add_column(name, no_wrap=True)
    for one in keys:
        allowance = Allowance(one.rpm, one.burst, one.tpm, one.concurrency)
        table.add_row(
            one.id,
            Text(one.label),
            Text(one.state, style=KEY_COLOURS[one.state]),
            ", ".join(one.scopes),
            Text(", ".join(one.models) or "all"),
            limits(allowance) or "policy's",
            moment(one.expires, now),
            moment(one.last_used, now),
        )
    return table


def print_keys(keys: Sequence[KeyFacts]) -> None:
    """Print the table of API keys to standard output."""
    _print(keys_table(keys, time.time()) if keys else NO_KEYS)


def moment(at: float | None, now: float) -> str:
    """Say how far away a moment is.

    >>> moment(None, 0), moment(200, 0), moment(0, 7500)
    ('never', 'in 3m 20s', '2h 5m ago')
    """
    if at is None:
        return "never"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def usage_table(usage: Sequence[Usage], labels: Mapping[str, str]) -> Table:
    """Return the table of what was used, with a line for all of it.

    Args:
        usage: By day, key and model.
        labels: Of keys, by their ids.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("DAY", "KEY", "LABEL", "MODEL"):
        table.add_column(name, overflow="fold")
    for name in ("REQUESTS", "TOKENS IN", "TOKENS OUT"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in usage:
        label = Text(labels.get(one.key_id, ""))
        counts = (one.requests, one.tokens_in, one.tokens_out)
        table.add_row(one.day, one.key_id or "-", label, Text(one.model), *(f"{count:,}" for count in counts))
    totals = [
        sum(one.requests for one in usage),
        sum(one.tokens_in for one in usage),
        sum(one.tokens_out for one in usage),
    ]
    table.add_row("all", "", "", "", *(f"{count:,}" for count in totals), style="bold")
    return table


def print_usage(usage: Sequence[Usage], labels: Mapping[str, str]) -> None:
    """Print the table of what was used to standard output."""
    _print(usage_table(usage, labels) if usage else NO_USAGE)


def settings_table(settings: Sequence[Setting]) -> Table:
    """Return the table of settings that can be changed at run time."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("SETTING", "VALUE", "FROM"):
        table.add_column(name, no_wrap=True)
    table.add_column("WHAT IT DOES", overflow="fold")
    for one in settings:
        source = "config set" if one.made else "configuration"
        table.add_row(one.name, written(one), source, Text(f"{one.description} {one.range.capitalize()}."))
    return table


def print_settings(settings: Sequence[Setting]) -> None:
    """Print the table of settings to standard output."""
    _print(settings_table(settings))
