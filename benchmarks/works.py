"""The kinds of work that each contender is given."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.load import Load, Requests, Streams, clients, exchange
from benchmarks.messages import Request, chat, long_chat, stream, upload
from benchmarks.procfs import Usage, usage
from benchmarks.proxies import Contender
from benchmarks.results import Sample, percentile

WARM = 0.4
TAIL = 0.3
IN_STEP = 0.9
FEW = 50
REST, REST_TIMEOUT = 0.05, 30.0
LATENCY_RATE = 3200.0
SLOW_RATE = 2.0
UPLOAD = bytes(range(256)) * (20 * 1024 * 1024 // 256)


@dataclass(frozen=True, slots=True)
class Scale:
    """How long to measure; durations in seconds.

    Attributes:
        starts: How often a start is timed at most.
        rounds: How often each work is done by each contender, in turn.
        requests: Window of the closed loop.
        latency: Window for latency at each number of connections.
        streams: Window of paced streams.
        slow: Duration of the slow streams.
        uploads: Files sent in a row.
    """

    starts: int
    rounds: int
    requests: float
    latency: float
    streams: float
    slow: float
    uploads: int


QUICK = Scale(starts=2, rounds=2, requests=1.0, latency=0.4, streams=1.0, slow=4.5, uploads=3)
FULL = Scale(starts=5, rounds=5, requests=2.0, latency=1.0, streams=2.0, slow=8.0, uploads=5)


@dataclass(frozen=True, slots=True)
class Target:
    """A contender that runs.

    Attributes:
        contender: Who it is.
        port: Where it listens.
        pid: Its process; None for the engine asked directly.
        engine: Port of the fake engine.
    """

    contender: Contender
    port: int
    pid: int | None
    engine: int

    def chat(self) -> Request:
        """Return the small request."""
        return chat(self.contender.prefix, verbatim=self.contender.verbatim)

    def routed_chat(self) -> Request:
        """Return the small request to where a proxy that knows models must look for its model."""
        return chat("", verbatim=self.contender.verbatim)

    def long_chat(self) -> Request:
        """Return a request with a long prompt, to the same place."""
        return long_chat("", verbatim=self.contender.verbatim)

    def stream(self, seconds: float, rate: float) -> Request:
        """Return a request for a stream of that duration, at that many chunks a second."""
        chunks = int(seconds * rate)
        return stream(self.contender.prefix, chunks, rate, verbatim=self.contender.verbatim)

    def usage(self) -> Usage:
        """Return what the proxy has used so far."""
        return Usage({}, 0) if self.pid is None else usage(self.pid)


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work.

    Attributes:
        name: What samples and the report call it.
        do: Does it once.
        direct: Whether the engine is asked directly too, for comparison.
        verbatim: Whether only proxies that pass everything on as it is can do it.
        once: Whether a single round is enough.
    """

    name: str
    do: Callable[[Target, Scale], Awaitable[Sample]]
    direct: bool = False
    verbatim: bool = False
    once: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """What happened within a stretch of time.

    Attributes:
        first: Units done before it.
        units: Units done within.
        seconds: How long it was.
        cpu: CPU seconds that the proxy used.
    """

    first: int
    units: int
    seconds: float
    cpu: float

    def values(self) -> dict[str, float]:
        """Return its figures by name; none per unit where too little was done to tell."""
        rates = {"per_second": self.units / self.seconds, "busy_share": self.cpu / self.seconds}
        return rates | ({"cpu_us": 1e6 * self.cpu / self.units} if self.units >= FEW else {})


async def observe(target: Target, load: Load, seconds: float) -> Window:
    """Watch a load for that long, once it has warmed up."""
    await asyncio.sleep(WARM)
    first, begun, before = load.units(), time.perf_counter(), target.usage()
    await asyncio.sleep(seconds)
    after, ended, last = target.usage(), time.perf_counter(), load.units()
    return Window(first, last - first, ended - begun, after.cpu_seconds_since(before))


def requests(name: str, request: Callable[[Target], Request]) -> Callable[[Target, Scale], Awaitable[Sample]]:
    """Return work that sends a request over 32 connections as fast as answers come."""

    async def do(target: Target, scale: Scale) -> Sample:
        async with clients(target.port, 32) as connected:
            load = Requests(connected, request(target))
            window = await observe(target, load, scale.requests)
            await load.finish()
        values = window.values() | _latency(load, window)
        return Sample(target.contender.name, name, values, dict(load.faults))

    return do


def latency(connections: int) -> Callable[[Target, Scale], Awaitable[Sample]]:
    """Return work that times small requests, over that many connections at a rate all can bear.

    One connection sends as fast as answers come; more of them send `LATENCY_RATE` requests a second together.
    """
    interval = connections / LATENCY_RATE if connections > 1 else 0.0

    async def do(target: Target, scale: Scale) -> Sample:
        async with clients(target.port, connections) as connected:
            load = Requests(connected, target.chat(), interval)
            window = await observe(target, load, scale.latency)
            await load.finish()
        values = _latency(load, window)
        if interval:
            values["pace_share"] = window.units / window.seconds / LATENCY_RATE
        return Sample(target.contender.name, f"latency {connections}", values, dict(load.faults))

    return do


def paced(name: str, count: int, rate: float) -> Callable[[Target, Scale], Awaitable[Sample]]:
    """Return work that holds that many streams of that many chunks a second each.

    A proxy that cannot keep pace is not waited for: its share is told and its streams are dropped.
    """

    async def do(target: Target, scale: Scale) -> Sample:
        request = target.stream(WARM + scale.streams + TAIL, rate)
        async with clients(target.port, count) as connected:
            await engine_lag(target.engine)
            load = Streams(connected, request)
            window = await observe(target, load, scale.streams)
            lag = await engine_lag(target.engine)
            pace = window.units / window.seconds / (count * rate)
            if pace >= IN_STEP:
                await load.finish()
        values = window.values() | {"pace_share": pace, "engine_lag_ms": lag}
        return Sample(target.contender.name, name, values, dict(load.faults))

    return do


async def slow_streams(target: Target, scale: Scale) -> Sample:
    """Hold 200 slow streams, then 1,000 more; see what they take, and that none is lost."""
    request = target.stream(scale.slow, SLOW_RATE)
    at_start = target.usage().rss_kib
    async with clients(target.port, 200) as first:
        load = Streams(first, request)
        await asyncio.sleep(1.0)
        at_200 = target.usage().rss_kib
        async with clients(target.port, 1000) as further:
            more = Streams(further, request)
            await asyncio.sleep(1.5)
            at_1200 = target.usage().rss_kib
            at_once = sum(client.busy for client in [*first, *further])
            await load.finish()
            await more.finish()
    values = {
        "start_mib": at_start / 1024,
        "at_200_mib": at_200 / 1024,
        "further_kib": (at_1200 - at_200) / 1000,
        "at_once": float(at_once),
        "lost": float(1200 - load.whole - more.whole),
    }
    return Sample(target.contender.name, "slow streams", values, dict(load.faults + more.faults))


async def uploads(target: Target, scale: Scale) -> Sample:
    """Send 20 MiB files over one connection, one after the other."""
    request, faults = upload(target.contender.prefix, UPLOAD), Counter[str]()
    async with clients(target.port, 1) as (client,):
        begun, before = time.perf_counter(), target.usage()
        for _ in range(scale.uploads):
            if fault := await exchange(client, request):
                faults[fault] += 1
        seconds, cpu = time.perf_counter() - begun, target.usage().cpu_seconds_since(before)
    values = {
        "cpu_ms": 1000 * cpu / scale.uploads,
        "mib_per_second": scale.uploads * len(UPLOAD) / 2**20 / seconds,
    }
    return Sample(target.contender.name, "uploads", values, dict(faults))


WORKS = (
    Work("slow streams", slow_streams, once=True),
    Work("requests", requests("requests", Target.chat), direct=True),
    Work("routed", requests("routed", Target.routed_chat)),
    Work("long prompts", requests("long prompts", Target.long_chat)),
    Work("latency 1", latency(1), direct=True),
    Work("latency 32", latency(32), direct=True),
    Work("latency 256", latency(256), direct=True),
    Work("paced", paced("paced", 200, 50.0)),
    Work("uncoalesced", paced("uncoalesced", 500, 100.0)),
    Work("uploads", uploads, direct=True, verbatim=True),
)


async def once(work: Work, target: Target, scale: Scale) -> Sample:
    """Do a work; a proxy that cannot be reached or does not answer is a fault, not an end."""
    await _at_rest(target)
    try:
        return await work.do(target, scale)
    except (OSError, TimeoutError) as error:
        return Sample(target.contender.name, work.name, {}, {str(error) or "no answer in time": 1})


async def engine_lag(port: int) -> float:
    """Return by how many milliseconds chunks left the engine late on average, since last asked."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /lag HTTP/1.1\r\nHost: engine\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(maxsplit=1)[0])
        return float(json.loads(await reader.readexactly(length))["mean_ms"])
    finally:
        writer.close()


async def first_answer(target: Target) -> bool:
    """Ask once; tell whether a good answer came."""
    try:
        async with clients(target.port, 1) as (client,):
            return not await exchange(client, target.chat())
    except (OSError, TimeoutError):
        return False


async def _at_rest(target: Target) -> None:
    """Wait until the proxy has got over the work before, within reason."""
    deadline = time.monotonic() + REST_TIMEOUT
    while time.monotonic() < deadline:
        before = target.usage()
        await asyncio.sleep(REST)
        if target.usage().cpu_seconds_since(before) < REST / 5:
            return


def _latency(load: Requests, window: Window) -> dict[str, float]:
    within = sorted(load.latencies[window.first : window.first + window.units])
    if not within:
        return {}
    return {"p50_ms": 1000 * percentile(within, 0.5), "p99_ms": 1000 * percentile(within, 0.99)}
