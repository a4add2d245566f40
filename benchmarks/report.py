"""The report: one table of figures, ratios, and what ai-proxy must hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.machine import Machine
from benchmarks.proxies import DIRECT, OURS, REFERENCE
from benchmarks.results import Results

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
IN_STEP = 0.95
ENGINE_LATE_MS = 10.0
MEANINGS = {
    "?": "the engine itself was late, so the machine was too busy to tell: measure again",
    "*": "the pace was not kept: the figure is that of a saturated proxy",
}
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        label: What people read; ends in the unit.
        work: Which work it came from.
        value: Which of its values.
        digits: Digits after the point.
        added: Whether the engine's own figure is taken off.
        ratio: Whether it is worth a ratio.
    """

    label: str
    work: str
    value: str
    digits: int = 1
    added: bool = False
    ratio: bool = False

    def figure(self, results: Results, contender: str) -> float | None:
        """Return the figure of a contender."""
        if self.added and contender != DIRECT:
            return results.added(contender, DIRECT, self.work, self.value)
        return results.median(contender, self.work, self.value)


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that ai-proxy must hold.

    Attributes:
        label: What people read.
        most: The largest figure allowed.
        figure: Takes the figure from the results.
    """

    label: str
    most: float
    figure: Callable[[Results], float | None]


def _latency_rows(connections: int) -> list[Row]:
    work = f"latency {connections}"
    noun = "connection" if connections == 1 else "connections"
    return [
        Row(f"added latency p{share}, {connections} {noun}, ms", work, f"p{share}_ms", 3, added=True)
        for share in (50, 99)
    ]


ROWS = (
    Row("start to first answer, s", "start", "seconds", 2),
    Row("CPU per request, us", "requests", "cpu_us", ratio=True),
    Row("requests/s, 32 connections", "requests", "per_second", 0),
    Row("proxy's core busy meanwhile, share", "requests", "busy_share", 2),
    Row("CPU per request by model, us", "routed", "cpu_us", ratio=True),
    Row("requests/s by model, 32 connections", "routed", "per_second", 0),
    Row("CPU per request by model, 34 kB prompt, us", "long prompts", "cpu_us", ratio=True),
    Row("requests/s by model, 34 kB prompt", "long prompts", "per_second", 0),
    *_latency_rows(1),
    *_latency_rows(32),
    *_latency_rows(256),
    Row("CPU per chunk, 200 streams x 50/s, us", "paced", "cpu_us", ratio=True),
    Row("CPU per chunk, 500 streams x 100/s, us", "uncoalesced", "cpu_us", ratio=True),
    Row("pace kept, 500 streams x 100/s, share", "uncoalesced", "pace_share", 3),
    Row("engine late meanwhile, mean ms", "uncoalesced", "engine_lag_ms", 2),
    Row("CPU per 20 MiB upload, ms", "uploads", "cpu_ms", ratio=True),
    Row("upload, MiB/s", "uploads", "mib_per_second", 0),
    Row("RSS at start, MiB", "slow streams", "start_mib"),
    Row("RSS at 200 streams, MiB", "slow streams", "at_200_mib"),
    Row("RSS per further stream, KiB", "slow streams", "further_kib"),
    Row("slow streams at once", "slow streams", "at_once", 0),
    Row("slow streams lost", "slow streams", "lost", 0),
)


def _ratio(work: str, value: str) -> Callable[[Results], float | None]:
    return lambda results: results.ratio(OURS, REFERENCE, work, value)


def _own(work: str, value: str) -> Callable[[Results], float | None]:
    return lambda results: results.median(OURS, work, value)


def _added(work: str, value: str) -> Callable[[Results], float | None]:
    return lambda results: results.added(OURS, DIRECT, work, value)


LIMITS = (
    Limit("CPU per request, of nginx's", 1.5, _ratio("requests", "cpu_us")),
    Limit("CPU per request by model, of nginx's", 1.7, _ratio("routed", "cpu_us")),
    Limit("CPU per request by model, 34 kB prompt, of nginx's", 2.1, _ratio("long prompts", "cpu_us")),
    Limit("CPU per chunk, 200 streams x 50/s, of nginx's", 1.2, _ratio("paced", "cpu_us")),
    Limit("CPU per chunk, 500 streams x 100/s, of nginx's", 1.4, _ratio("uncoalesced", "cpu_us")),
    Limit("added latency p50, 32 connections, ms", 0.3, _added("latency 32", "p50_ms")),
    Limit("added latency p99, 32 connections, ms", 2.0, _added("latency 32", "p99_ms")),
    Limit("RSS at start, MiB", 70.0, _own("slow streams", "start_mib")),
    Limit("RSS at 200 streams, MiB", 75.0, _own("slow streams", "at_200_mib")),
    Limit("RSS per further stream, KiB", 20.0, _own("slow streams", "further_kib")),
    Limit("slow streams lost", 0.0, _own("slow streams", "lost")),
    Limit("start to first answer, s", 1.5, _own("start", "seconds")),
)


def report(
    machine: Machine, versions: dict[str, str], rounds: int, results: Results, absent: Sequence[str]
) -> str:
    """Return the whole report as Markdown that reads well in a terminal too."""
    names = list(versions)
    facts = [*machine.lines(), ", ".join(versions.values()), f"medians of {rounds} rounds, taken in turn"]
    sections = [
        "\n".join(f"- {fact}" for fact in [*facts, *absent]),
        figures(results, names),
        remarks(results, names),
        ratios(results, names) if REFERENCE in names else "",
        limits(results) if {OURS, REFERENCE} <= set(names) else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def figures(results: Results, names: Sequence[str]) -> str:
    """Return the table of what was measured, the engine itself last."""
    columns = [*names, DIRECT]
    lines = [[row.label, *(_cell(results, row, name) for name in columns)] for row in ROWS]
    return markdown_table(["", *columns], lines)


def remarks(results: Results, names: Sequence[str]) -> str:
    """Return what the marks in the table mean, and every fault by name."""
    faults = [
        f"- ! {name}, {work}: {', '.join(f'{count} x {fault}' for fault, count in found.items())}"
        for name in [*names, DIRECT]
        for work in dict.fromkeys(sample.work for sample in results.samples)
        if (found := results.faults(name, work))
    ]
    marks = {_mark(results, row.work, name) for row in ROWS for name in [*names, DIRECT]}
    notes = [f"- {mark} {meaning}" for mark, meaning in MEANINGS.items() if mark in marks]
    whole = ["- no answer was lost, cut short, altered or out of order"]
    return "\n".join(["- direct: the engine itself, without a proxy", *notes, *(faults or whole)])


def ratios(results: Results, names: Sequence[str]) -> str:
    """Return the table of ratios to the reference."""
    lines = [
        [row.label.rpartition(",")[0]]
        + [_number(results.ratio(name, REFERENCE, row.work, row.value), 2) for name in names]
        for row in ROWS
        if row.ratio
    ]
    return markdown_table([f"ratio to {REFERENCE}", *names], lines)


def limits(results: Results) -> str:
    """Return the table of what ai-proxy must hold, and whether it does."""
    lines = []
    for limit in LIMITS:
        figure = limit.figure(results)
        verdict = NOTHING if figure is None else "held" if figure <= limit.most else "MISSED"
        lines.append([limit.label, f"{limit.most:g}", _number(figure, 2), verdict])
    return markdown_table([f"{OURS} must hold", "at most", "measured", ""], lines)


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns aligned for reading as plain text.

    >>> print(markdown_table(["", "nginx"], [["CPU, us", "17.0"], ["start, s", "0.02"]]))
    |          | nginx |
    | -------- | ----: |
    | CPU, us  |  17.0 |
    | start, s |  0.02 |
    """
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(head, *lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(cells, widths) for cells in (head, rule, *lines))


def insert(page: str, text: str) -> str:
    """Return a page with the text between its two markers.

    Raises:
        ValueError: The page lacks the markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"it lacks the lines {BEGIN} and {END} to put the figures between")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return f"| {' | '.join([first, *rest])} |"


def _cell(results: Results, row: Row, name: str) -> str:
    text = _number(row.figure(results, name), row.digits)
    return f"{text} {_mark(results, row.work, name)}".rstrip()


def _mark(results: Results, work: str, name: str) -> str:
    if results.faults(name, work):
        return "!"
    if (results.median(name, work, "engine_lag_ms") or 0.0) > ENGINE_LATE_MS:
        return "?"
    pace = results.median(name, work, "pace_share")
    return "*" if pace is not None and pace < IN_STEP else ""


def _number(figure: float | None, digits: int) -> str:
    return NOTHING if figure is None else f"{figure:,.{digits}f}"
