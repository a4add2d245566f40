"""Streams under load, routed by model: many for long, then more at once; none may be lost or altered."""

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import PATIENCE, Client, clients, exchange
from benchmarks.messages import stream
from benchmarks.processes import Cores, free_port, running
from benchmarks.procfs import Usage
from benchmarks.proxies import CONTENDERS, OURS, Setting, UnavailableError, environment
from benchmarks.report import markdown_table
from benchmarks.results import percentile
from benchmarks.works import Target, first_answer

ROOT = Path(__file__).parent.parent
START_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """A load of streams; durations in seconds.

    Attributes:
        count: How many there are in all.
        seconds: How long each takes.
        rate: Chunks a second of each.
        interval: Between two that begin; 0 to begin one as soon as another ends.
        at_once: How many there may be at a time; 0 for as many as come together.
    """

    count: int
    seconds: float
    rate: float
    interval: float = 0.0
    at_once: int = 0

    @property
    def chunks(self) -> int:
        """Of each stream."""
        return round(self.seconds * self.rate)

    @property
    def title(self) -> str:
        """Say what is done.

        >>> StreamLoad(300, 20.0, 20.0, interval=0.6).title, StreamLoad(1000, 0.1, 200.0, at_once=64).title
        ('20 s each, 100 a minute', '0.1 s each, 64 at once')
        """
        pace = f"{60 / self.interval:.0f} a minute" if self.interval else f"{self.at_once} at once"
        return f"{self.seconds:g} s each, {pace}"


FULL_LOADS = (
    StreamLoad(300, 20.0, 20.0, interval=0.6),
    StreamLoad(1000, 0.1, 200.0, at_once=64),
)
QUICK_LOADS = (
    StreamLoad(20, 4.0, 20.0, interval=0.6),
    StreamLoad(200, 0.1, 200.0, at_once=64),
)


@dataclass(slots=True)
class Tally:
    """What came of a load.

    Attributes:
        load: What was to be done.
        whole: Streams that came to their end with every byte as it was sent.
        faults: What went wrong with others, and how often.
        firsts: Seconds to the first chunk, of those that are whole.
        late: Seconds beyond its own duration that each of those took.
        busy: Streams under way.
        most: Streams that were under way at once.
        cpu: CPU seconds of the proxy.
        rss_mib: Of the proxy, at the end.
    """

    load: StreamLoad
    whole: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    firsts: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    busy: int = 0
    most: int = 0
    cpu: float = 0.0
    rss_mib: float = 0.0

    def begin(self) -> None:
        """Take note that a stream begins."""
        self.busy += 1
        self.most = max(self.most, self.busy)

    def end(self, fault: str, client: Client) -> None:
        """Take note of what became of a stream."""
        self.busy -= 1
        if fault:
            self.faults[fault] += 1
            return
        self.whole += 1
        self.firsts.append(client.first)
        self.late.append(client.seconds - self.load.seconds)

    @property
    def lost(self) -> int:
        """Streams that are not whole."""
        return self.load.count - self.whole


async def stream_loads(cores: Cores, loads: Sequence[StreamLoad]) -> tuple[str, int]:
    """Do one load after the other; return the section of the report, and how many streams were lost.

    Raises:
        UnavailableError: The proxy does not serve.
    """
    os.sched_setaffinity(0, {cores.load})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        target = await _serve(cores, Path(folder), stack)
        tallies = []
        for load in loads:
            print(f"streams: {load.title}", file=sys.stderr, flush=True)
            tallies.append(await put(load, target))
    return section(tallies), sum(tally.lost for tally in tallies)


async def _serve(cores: Cores, folder: Path, stack: ExitStack) -> Target:
    """Start the engine and the proxy in front of it."""
    setting = Setting(free_port(), free_port(), folder)
    engine = (sys.executable, "-m", "benchmarks.engine", "--port", str(setting.engine))
    stack.enter_context(
        running(engine, cores.engine, folder / "engine.log", {**os.environ, "PYTHONPATH": str(ROOT)})
    )
    (contender,) = (one for one in CONTENDERS if one.name == OURS)
    recipe = contender.prepare(setting)
    process = stack.enter_context(
        running(recipe.command, cores.proxy, folder / "output.log", environment(setting, recipe))
    )
    target = Target(contender, setting.port, process.pid, setting.engine)
    deadline = time.monotonic() + START_TIMEOUT
    while not await first_answer(target):
        if process.poll() is not None or time.monotonic() > deadline:
            raise UnavailableError(f"{OURS} does not serve: {(folder / 'output.log').read_text()[-500:]}")
        await asyncio.sleep(0.01)
    return target


async def put(load: StreamLoad, target: Target) -> Tally:
    """Put a load on a proxy."""
    tally, before = Tally(load), target.usage()
    if load.interval:
        await _at_a_pace(tally, target.port)
    else:
        await _at_once(tally, target.port)
    after: Usage = target.usage()
    tally.cpu, tally.rss_mib = after.cpu_seconds_since(before), after.rss_kib / 1024
    return tally


async def _at_a_pace(tally: Tally, port: int) -> None:
    """Begin a stream whenever its time has come, each on a connection of its own."""
    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(tally.load.count):
            await asyncio.sleep(begun + number * tally.load.interval - time.monotonic())
            group.create_task(_alone(tally, port))


async def _alone(tally: Tally, port: int) -> None:
    async with clients(port, 1) as (client,):
        await _one(tally, client)


async def _at_once(tally: Tally, port: int) -> None:
    """Keep so many under way, each client beginning its next when one has ended."""
    left = iter(range(tally.load.count))

    async def go_on(client: Client) -> None:
        for _ in left:
            await _one(tally, client)

    async with clients(port, tally.load.at_once) as connected, asyncio.TaskGroup() as group:
        for client in connected:
            group.create_task(go_on(client))


async def _one(tally: Tally, client: Client) -> None:
    load = tally.load
    tally.begin()
    try:
        fault = await exchange(client, stream("", load.chunks, load.rate), load.seconds + PATIENCE)
    except TimeoutError:
        fault = "no answer in time"
    tally.end(fault, client)


def section(tallies: Sequence[Tally]) -> str:
    """Return what is told of the loads."""
    rows: list[list[str]] = [
        ["streams asked for", *(f"{tally.load.count:,}" for tally in tallies)],
        ["chunks in each", *(f"{tally.load.chunks:,}" for tally in tallies)],
        ["most at once", *(f"{tally.most:,}" for tally in tallies)],
        ["whole and in order, by checksum", *(f"{tally.whole:,}" for tally in tallies)],
        ["lost, cut, altered or reordered", *(f"{tally.lost:,}" for tally in tallies)],
        ["first chunk p50, ms", *(_ms(tally.firsts, 0.5) for tally in tallies)],
        ["first chunk p99, ms", *(_ms(tally.firsts, 0.99) for tally in tallies)],
        ["end beyond the stream's own time p99, ms", *(_ms(tally.late, 0.99) for tally in tallies)],
        ["CPU per chunk, us", *(_per_chunk(tally) for tally in tallies)],
        ["RSS at the end, MiB", *(f"{tally.rss_mib:.1f}" for tally in tallies)],
    ]
    head = ["streams through /v1/chat/completions", *(tally.load.title for tally in tallies)]
    faults = [f"- {count} x {fault}" for tally in tallies for fault, count in tally.faults.items()]
    return "\n".join([markdown_table(head, rows), *(["", *faults] if faults else [])])


def _ms(values: Sequence[float], share: float) -> str:
    return f"{1000 * percentile(sorted(values), share):.1f}" if values else "-"


def _per_chunk(tally: Tally) -> str:
    chunks = tally.whole * tally.load.chunks
    return f"{1e6 * tally.cpu / chunks:.1f}" if chunks else "-"
