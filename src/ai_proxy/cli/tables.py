"""Tables for people."""

import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

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
