"""Tables in the text format."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from ai_proxy.control.run_settings import Setting, written
from ai_proxy.core.durations import format_duration
from ai_proxy.core.key_facts import KeyFacts, limits
from ai_proxy.core.limits import Allowance
from ai_proxy.core.store_ports import Usage
from ai_proxy.core.terminal import visible

COLOURS = {
    "ready": "green",
    "starting": "yellow",
    "loading": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "failing": "red",
    "failed": "red",
}
"""Colours of service states; other states have none."""

PIPE_WIDTH = 250
"""Width in characters when the output is not a terminal, so that nothing is cut."""

NOTHING_CONFIGURED = "no services are configured; 'ai-proxy config init' writes an example"


def span(seconds: float) -> str:
    """Return a duration in its two largest units.

    >>> [span(s) for s in (-1, 8.4, 200, 7500, 360_000)]
    ['0s', '8s', '3m 20s', '2h 5m', '4d 4h']
    """
    return " ".join(re.findall(r"\d+\D+", format_duration(max(0, int(seconds))))[:2]) or "0s"


class _SafeTable(Table):
    """A table whose cells show what they hold, and control nothing."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, **layout: bool) -> None:
        """Add a row."""
        super().add_row(*map(_shown, cells), style=style, **layout)


def _shown(cell: RenderableType | None) -> RenderableType | None:
    match cell:
        case str():
            return Text(visible(cell))
        case Text():
            return Text(visible(cell.plain), style=cell.style)
        case _:
            return cell


def _table(*columns: str) -> Table:
    """Return an empty table; a column ends in `>` when it is right-aligned, in `~` when it wraps."""
    table = _SafeTable(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.rstrip(">~"),
            justify="right" if column.endswith(">") else "left",
            no_wrap=not column.endswith("~"),
            overflow="fold" if column.endswith("~") else "ellipsis",
        )
    return table


def print_services(services: list[dict[str, Any]]) -> None:
    """Print a table of the services from the API."""
    now = time.time()
    names = "SERVICE,STATE,ENGINE,RUNTIME,IN FLIGHT>,WAITING>,CPU>,MEMORY>,ADDRESS,SINCE,STOPS IN,REASON~"
    table = _table(*names.split(","))
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
    _print(table, NOTHING_CONFIGURED)


def print_models(models: list[dict[str, Any]]) -> None:
    """Print a table of the models from the API."""
    table = _table("MODEL~", "SERVICE", "ENGINE", "STATE", "CONTEXT>")
    for one in models:
        context = one["context_length"]
        table.add_row(
            Text(one["name"]),
            one["service_id"],
            one["engine"],
            Text(one["state"], style=COLOURS.get(one["state"], "")),
            "-" if context is None else f"{context:,}",
        )
    _print(table, NOTHING_CONFIGURED)


def _print(table: Table, empty: str = "") -> None:
    """Print a table, or a text when the table is empty."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table if table.row_count or not empty else empty)


def usage(stats: dict[str, Any] | None) -> tuple[str, str]:
    """Return CPU and memory as text, with GPU memory where it is known.

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
"""Colours of engine states; other states have none."""


def print_engines(engines: list[dict[str, Any]]) -> None:
    """Print a table of the detected engines from the API."""
    table = _table("ENGINE", "STATE", "ADDRESS", "VERSION", "LATENCY>", "MODELS>", "DETAIL~")
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
    _print(table)


PROXY_COLOURS = {"running": "green", "stopping": "yellow", "not_answering": "red", "dead": "red"}
"""Colours of proxy states; other states have none."""

NO_PROXY = "no proxy is running; start one with 'ai-proxy proxy start'"


def print_proxies(proxies: list[dict[str, Any]]) -> None:
    """Print a table of the proxies."""
    table = _table("ID", "STATE", "PID>", "PORT>", "MODE", "UPTIME", "ENDPOINTS~", "LAST ERROR~")
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
    _print(table, NO_PROXY)


KEY_COLOURS = {"good": "green", "expired": "yellow", "revoked": "red"}
"""Colours of API key states."""

NO_KEYS = "there are no API keys; create one with 'ai-proxy api-keys create'"
NO_USAGE = "there is no usage yet"


def print_keys(keys: Sequence[KeyFacts]) -> None:
    """Print a table of the API keys."""
    now = time.time()
    table = _table("ID", "LABEL~", "STATE", "SCOPES", "MODELS~", "LIMITS~", "EXPIRES", "LAST USED")
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
    _print(table, NO_KEYS)


def moment(at: float | None, now: float) -> str:
    """Return a time relative to now.

    >>> moment(None, 0), moment(200, 0), moment(0, 7500)
    ('never', 'in 3m 20s', '2h 5m ago')
    """
    if at is None:
        return "never"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def print_usage(usage: Sequence[Usage], labels: Mapping[str, str]) -> None:
    """Print a table of usage, with a line of totals; `labels` are those of keys by their ids."""
    table = _table("DAY~", "KEY~", "LABEL~", "MODEL~", "REQUESTS>", "TOKENS IN>", "TOKENS OUT>")
    for one in usage:
        label = Text(labels.get(one.key_id, ""))
        counts = (one.requests, one.tokens_in, one.tokens_out)
        table.add_row(one.day, one.key_id or "-", label, Text(one.model), *(f"{count:,}" for count in counts))
    if usage:
        totals = (
            sum(one.requests for one in usage),
            sum(one.tokens_in for one in usage),
            sum(one.tokens_out for one in usage),
        )
        table.add_row("all", "", "", "", *(f"{count:,}" for count in totals), style="bold")
    _print(table, NO_USAGE)


def print_settings(settings: Sequence[Setting]) -> None:
    """Print a table of the run-time settings."""
    table = _table("SETTING", "VALUE", "FROM", "WHAT IT DOES~")
    for one in settings:
        source = "config set" if one.made else "configuration"
        table.add_row(one.name, written(one), source, Text(f"{one.description} {one.range.capitalize()}."))
    _print(table)
