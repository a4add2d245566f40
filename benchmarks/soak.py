"""Everything at once, for as long as wanted; in the end every answer was right, and nothing is left.

Clients ask, stream, upload, hold WebSockets, leave early, read slowly or only stay connected, while the
configuration is reloaded and a backend is killed again and again. Only visible failures are allowed, and
only where something was killed. In the last fifth of the time the proxy itself is killed, and must adopt
what runs. With a Docker engine, a container is started for a request, stopped when idle and killed as well.

It runs as `./scripts/soak MINUTES`, on Linux.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import uvloop
from tests.rigs.docker_engine import private_engine, reason_for_none

from ai_proxy.data import demo_model_path
from ai_proxy.platform.tasks import cancel, spawn
from benchmarks.load import Client, exchange
from benchmarks.messages import Request, chat, stream, upload
from benchmarks.plot import Line, Panel, chart, slope
from benchmarks.processes import free_port
from benchmarks.procfs import PROC, parse_rss
from benchmarks.report import markdown_table
from benchmarks.results import percentile

ROOT = Path(__file__).parent.parent
PAGE, PLOT = ROOT / "docs/performance.md", ROOT / "docs/soak.svg"
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
PROGRAM = Path(sys.executable).with_name("ai-proxy")
MAKE_IMAGE, IMAGE = ROOT / "scripts/make_image", "ai-proxy/test"

IDLE = 10_000
SPARE_FILES = 2_000
"""Open files that the proxy and the clients need beside idle connections."""
PACE = 2_000.0
"""Short requests a second."""
GROWTH_MIB = 5.0
"""Most that RSS may grow with 1,000,000 requests, once the proxy is warm."""
MANY = 200_000
"""Requests from which on growth is more than what happens once."""
PATIENCE = 60.0
FILE = bytes(range(256)) * 4096
VISIBLE = ("status 5", "broke off", "connection", "refused", "reset")
"""How faults begin that a client cannot take for a whole answer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        seconds: How long, in all.
        idle: Connections that only stay open.
    """

    seconds: float
    idle: int

    @property
    def first_life(self) -> float:
        """Seconds until the proxy is killed for the first time."""
        return 0.8 * self.seconds

    @property
    def warm_up(self) -> float:
        """Seconds until growth counts."""
        return min(0.25 * self.seconds, 120.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at a moment, in seconds since the beginning.

    Attributes:
        at: The moment.
        pid: Of the proxy.
        rss_mib: Its resident memory.
        fds: Its open files.
        tasks: Of its event loop.
        requests: Answers so far, right or wrong.
        p50_ms: Of the probing client, since the last sample.
        p99_ms: The same.
    """

    at: float
    pid: int
    rss_mib: float
    fds: int
    tasks: int
    requests: int
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Tally:
    """What came of it all.

    Attributes:
        whole: Right answers, by kind of work.
        visible: Faults that a client saw, and that had a cause, by kind.
        faults: What must not happen.
        probes: Seconds of the probing client's requests since the last sample.
        events: What was done to the parts, and how often.
    """

    whole: Counter[str] = field(default_factory=Counter)
    visible: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    probes: list[float] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)

    @property
    def answers(self) -> int:
        """All of them."""
        return self.whole.total() + self.visible.total()

    def note(self, kind: str, fault: str, *, excused: bool) -> None:
        """Take note of an answer."""
        if not fault:
            self.whole[kind] += 1
        elif excused and fault.startswith(VISIBLE):
            self.visible[kind] += 1
        else:
            self.faults[f"{kind}: {fault}"] += 1


class House:
    """A proxy with two backends that it runs as processes, and one that it runs as a container.

    Args:
        folder: For all files.
        docker: Where a Docker engine listens that has the image; empty for none.

    Attributes:
        port: Of the proxy.
        deaths: How often the proxy was killed.
        docker: As given.
    """

    def __init__(self, folder: Path, docker: str) -> None:
        self.docker = docker
        self._strangers = frozenset[str]()
        self._strangers = self.containers()
        self.port = free_port()
        self.deaths = 0
        self.serving = False
        self._folder = folder
        self._process: subprocess.Popen[bytes]
        self._guest = False
        home = str(folder)
        self._environment = {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home}
        self._environment["AI_PROXY_DATA_DIR"] = str(folder / "data")
        self._environment["AI_PROXY_RUN_DIR"] = str(folder / "run")
        self._environment["AI_PROXY_DETECT"] = "0"
        if docker:
            self._environment["DOCKER_HOST"] = docker

    @property
    def pid(self) -> int:
        """Of the proxy."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the proxy has logged."""
        return self._folder / "proxy.log"

    def write(self) -> None:
        """Write the configuration, every other time with a guest."""
        engine = [sys.executable, "-m", "benchmarks.engine", "--port", "${port}"]
        service = {
            "type": "generic",
            "command": engine,
            "env": {"PYTHONPATH": str(ROOT)},
            "idle_timeout": "0s",
            "stop_grace": "2s",
        }
        services: dict[str, Any] = {
            "steady": {**service, "models": ["bench"]},
            "victim": {**service, "models": ["victim"]},
        }
        if self.docker:
            model = demo_model_path()
            services["container"] = {
                "type": "llama-cpp-server",
                "image": IMAGE,
                "docker": {"pull": "never"},
                "volumes": [f"{model.parent}:/models:ro"],
                "args": ["-m", f"/models/{model.name}", "-c", "512"],
                "idle_timeout": "1s",
                "on_exit": "stop",
            }
        if self._guest:
            services["guest"] = {"type": "generic", "url": "http://127.0.0.1:9", "models": ["guest"]}
        limits = {"max_connections": 4 * IDLE, "keep_alive_timeout": "1h"}
        server = {"host": "127.0.0.1", "port": self.port, "limits": limits}
        fresh = self._folder / "config.new"
        fresh.write_text(json.dumps({"server": server, "services": services}))
        fresh.replace(self._folder / "config.yaml")

    async def start(self) -> None:
        """Start the proxy, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                [PROGRAM, "serve", "--config", self._folder / "config.yaml", "--log-level", "warning"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._folder,
            )
        await until(self._answers, f"the proxy does not answer; see {self.log}")
        self.serving = True

    async def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the proxy ended: {self.log.read_text()[-2000:]}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return (await self.ask("/health"))[0] == 200
        return False

    async def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        """Ask the proxy for something small."""
        return await asyncio.to_thread(self._ask, path, method, body)

    def _ask(self, path: str, method: str, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    async def views(self) -> dict[str, Any]:
        """Return every service as the proxy sees it."""
        services = json.loads((await self.ask("/api/v1/services"))[1])["services"]
        return {view["id"]: view for view in services}

    async def reload(self) -> None:
        """Add or remove the guest."""
        self._guest = not self._guest
        self.write()
        self._process.send_signal(signal.SIGHUP)

    async def without_guest(self) -> None:
        """Remove the guest if it is there."""
        if self._guest:
            await self.reload()

        async def gone() -> bool:
            return "guest" not in await self.views()

        await until(gone, "the guest does not leave")

    async def kill_victim(self) -> bool:
        """Kill the backend that may be killed; tell whether it ran."""
        view = (await self.views()).get("victim", {})
        if not view.get("ref"):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(view["ref"]), signal.SIGKILL)
        return True

    def containers(self) -> frozenset[str]:
        """Return the containers, running or not, that were not there before."""
        return frozenset(self._docker("ps", "--all", "--quiet", "--no-trunc").split()) - self._strangers

    async def kill_container(self) -> bool:
        """Kill the container; tell whether it ran."""
        ref = (await self.views()).get("container", {}).get("ref")
        return bool(ref) and bool(await asyncio.to_thread(self._docker, "kill", ref))

    def _docker(self, *words: str) -> str:
        if not self.docker:
            return ""
        command = ["docker", "--host", self.docker, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout

    async def kill(self) -> None:
        """Kill the proxy."""
        self.serving = False
        self.deaths += 1
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    async def end(self) -> int:
        """End the proxy as systemd would; return its exit code."""
        self.serving = False
        self._process.terminate()
        return await asyncio.to_thread(self._process.wait, PATIENCE)

    def kept_connections(self) -> int:
        """Return how many connections to backends the proxy has; it keeps idle ones for a while."""
        connections = psutil.Process(self.pid).net_connections("tcp")
        return sum(bool(one.raddr) and one.laddr.port != self.port for one in connections)

    def ours(self) -> list[int]:
        """Return the processes that are marked as started by the proxy."""
        return [process.pid for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            owner = process.environ().get("AI_PROXY_OWNER", "")
            return owner.startswith(str(self._folder)) and process.status() != psutil.STATUS_ZOMBIE
        return False

    def clean_up(self) -> None:
        """End whatever is left."""
        if hasattr(self, "_process") and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pid in self.ours():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left := self.containers():
            self._docker("rm", "--force", "--volumes", *left)


async def until(condition: Callable[[], Coroutine[Any, Any, bool]], complaint: str) -> None:
    """Wait for something outside.

    Raises:
        TimeoutError: It did not come; with the complaint.
    """
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        await asyncio.sleep(0.05)


class Soak:
    """One run."""

    def __init__(self, plan: Plan, house: House) -> None:
        self.tally = Tally()
        self.samples: list[Sample] = []
        self.marks: list[tuple[float, str]] = []
        self._plan = plan
        self._house = house
        self.docker = house.docker
        self._random = random.Random(1)  # noqa: S311 - spreads load, guards nothing
        self._begun = time.monotonic()
        self._leaving = False

    async def run(self) -> list[str]:
        """Do it all; return what is wrong, in words."""
        house = self._house
        house.write()
        await house.start()
        await self._warm()
        before = await self._sample()
        self._begun = time.monotonic()
        async with self._idle(), self._working(self._sampling(), *self._disturbances()), self._asking():
            await asyncio.sleep(self._plan.first_life)
        self._say("all clients leave")
        wrong = await self._compare(before)
        async with self._working(self._sampling()), self._asking():
            await self._kill_proxy()
        wrong += await self._leases()
        wrong += await self._leave()
        return wrong + self._judge()

    # Clients.

    def _clients(self) -> list[Coroutine[Any, Any, None]]:
        by_path, by_model = chat("/service/steady"), chat("")
        file = upload("/service/steady", FILE)
        each = 20 / PACE
        return [
            *(self._asks("short by path", lambda: by_path, each) for _ in range(10)),
            *(self._asks("short by model", lambda: by_model, each) for _ in range(10)),
            *(self._asks("killed backend", lambda: chat("/service/victim"), 0.05) for _ in range(4)),
            *(self._asks("stream", self._stream, 0.1, fresh=True) for _ in range(20)),
            *(self._asks("upload", lambda: file, 0.2) for _ in range(2)),
            *(self._websocket() for _ in range(5)),
            *(self._leaves_early() for _ in range(5)),
            *(self._reads_slowly() for _ in range(5)),
            *([self._wakes_container()] if self._house.docker else []),
            self._asks("probe", lambda: by_path, 0.05),
        ]

    def _stream(self) -> Request:
        return stream("", self._random.choice((10, 40, 160)), 40.0)

    async def _asks(
        self, kind: str, request: Callable[[], Request], pause: float, *, fresh: bool = False
    ) -> None:
        """Ask again and again, on one connection or on a fresh one each time."""
        client: Client | None = None
        due = time.monotonic() + self._random.random() * pause
        try:
            while not self._leaving:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                deaths, served = self._house.deaths, self._house.serving
                fault = ""
                try:
                    client = client or await self._connect()
                    fault = await exchange(client, request(), PATIENCE)
                except TimeoutError:
                    fault = "no answer in time"
                except OSError as error:
                    fault = f"refused: {error}"
                excused = kind == "killed backend" or not served or self._house.deaths != deaths
                self.tally.note(kind, fault, excused=excused)
                if client is not None and kind == "probe" and not fault:
                    self.tally.probes.append(client.seconds)
                if client is not None and (fault or fresh):
                    client.close()
                    client = None
                now = time.monotonic()
                due = now + 0.1 if fault else max(due, now - pause) + pause
        finally:
            if client is not None:
                client.close()

    async def _connect(self) -> Client:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Client, "127.0.0.1", self._house.port))[1]

    async def _websocket(self) -> None:
        """Send random bytes through a tunnel and compare what comes back."""
        while not self._leaving:
            deaths, served = self._house.deaths, self._house.serving
            try:
                fault = await self._tunnel()
            except (OSError, asyncio.IncompleteReadError) as error:
                fault = f"broke off: {error}"
            except TimeoutError:
                fault = "no answer in time"
            excused = not served or self._house.deaths != deaths
            self.tally.note("WebSocket", fault, excused=excused)
            await asyncio.sleep(0.5)

    async def _tunnel(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._house.port)
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(
                    b"GET /service/steady/socket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\n"
                    b"Upgrade: websocket\r\n\r\n"
                )
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 101 "):
                    return f"status {head[9:12].decode()}"
                for _ in range(10):
                    sent = self._random.randbytes(self._random.randrange(1, 100_000))
                    writer.write(sent)
                    if await reader.readexactly(len(sent)) != sent:
                        return "the bytes differ"
                    await asyncio.sleep(0.2)
                return ""
        finally:
            writer.transport.abort()

    async def _leaves_early(self) -> None:
        """Ask for a stream and leave before its end."""
        while not self._leaving:
            with contextlib.suppress(OSError):
                client = await self._connect()
                client.send(stream("", 160, 40.0), lambda *_: None)
                await asyncio.sleep(self._random.random())
                client.close()
                self.tally.events["clients that left early"] += 1
            await asyncio.sleep(0.1)

    async def _reads_slowly(self) -> None:
        """Read 20 kB/s of 175 kB/s, and leave after a while."""
        while not self._leaving:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._house.port, limit=4096)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                try:
                    writer.write(stream("", 4000, 1000.0).wire)
                    for _ in range(40):
                        if not await reader.read(2000):
                            break
                        await asyncio.sleep(0.1)
                    self.tally.events["slow readers"] += 1
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.5)

    async def _wakes_container(self) -> None:
        """Ask the container, then leave it alone until it is stopped, or killed."""
        body = b'{"model": "container", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}'
        while not self._leaving:
            deaths, served = self._house.deaths, self._house.serving
            try:
                status, _ = await self._house.ask("/v1/chat/completions", "POST", body)
                fault = "" if status == 200 else f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                fault = f"broke off: {error}"
            killed = self.tally.events["kill -9 of a container"] > 0
            excused = killed or not served or self._house.deaths != deaths
            self.tally.note("container", fault, excused=excused)
            await asyncio.sleep(4.0 * self._random.random())

    @asynccontextmanager
    async def _idle(self) -> AsyncIterator[None]:
        """Keep connections open that have asked once; none may be lost."""
        connected: list[Client] = []
        try:
            request = chat("/service/steady")
            for _ in range(self._plan.idle):
                client = await self._connect()
                connected.append(client)
                self.tally.note("idle connection", await exchange(client, request, PATIENCE), excused=False)
            self._say(f"{len(connected):,} connections are idle")
            yield
            for client in connected[:: max(1, len(connected) // 100)]:
                self.tally.note("idle connection", await exchange(client, request, PATIENCE), excused=False)
        finally:
            for client in connected:
                client.close()

    # What is done to the parts.

    def _disturbances(self) -> list[Coroutine[Any, Any, None]]:
        kills = [self._kill_container()] if self._house.docker else []
        return [self._reload(), self._kill_victim(), *kills]

    async def _reload(self) -> None:
        while True:
            await asyncio.sleep(3.0)
            await self._house.reload()
            self.tally.events["reloads"] += 1

    async def _kill_victim(self) -> None:
        while True:
            await asyncio.sleep(2.0 + 5.0 * self._random.random())
            self.tally.events["kill -9 of a backend"] += await self._house.kill_victim()

    async def _kill_container(self) -> None:
        while True:
            await asyncio.sleep(10.0 + 10.0 * self._random.random())
            self.tally.events["kill -9 of a container"] += await self._house.kill_container()

    async def _kill_proxy(self) -> None:
        """Kill the proxy and start it again; it must adopt the backend that nobody killed."""
        end = time.monotonic() + self._plan.seconds - self._plan.first_life
        while time.monotonic() < end:
            ref = (await self._house.views())["steady"]["ref"]
            await asyncio.sleep(2.0)
            self.marks.append((time.monotonic() - self._begun, "kill -9 of the proxy"))
            await self._house.kill()
            await self._house.start()
            self.tally.events["kill -9 of the proxy"] += 1
            if (await self._house.views())["steady"]["ref"] != ref:
                self.tally.faults["a backend that ran was not adopted"] += 1
            await asyncio.sleep(3.0)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Have clients ask; when left, each ends what it has begun: a cancelled connect leaves a socket."""
        self._leaving = False
        async with asyncio.TaskGroup() as clients:
            for client in self._clients():
                clients.create_task(client)
            yield
            self._leaving = True

    @asynccontextmanager
    async def _working(self, *work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Work beside the body; work that ends by itself has failed."""
        tasks = [spawn(one, "soak") for one in work]
        try:
            yield
        finally:
            failed = [task for task in tasks if task.done()]
            await cancel(*tasks)
        for task in failed:
            task.result()

    # What is seen.

    async def _warm(self) -> None:
        """Start every service; the container is stopped again, as it is when nobody asks it."""
        names = ["steady", "victim", *(["container"] if self._house.docker else [])]
        for order in (*(f"{name}/start" for name in names), *(f"{name}/unload" for name in names[2:])):
            status, body = await self._house.ask(f"/api/v1/service/{order}?wait=60", "POST")
            if status != 200:
                raise RuntimeError(f"{order} fails: {status} {body!r}")

    async def _sampling(self) -> None:
        pause = max(0.5, self._plan.seconds / 600)
        while True:
            await asyncio.sleep(pause)
            if self._house.serving:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self.samples.append(await self._sample())

    async def _sample(self) -> Sample:
        house, tally = self._house, self.tally
        pid = house.pid
        _, metrics = await house.ask("/metrics")
        tasks = next(
            int(float(line.split()[1]))
            for line in metrics.splitlines()
            if line.startswith(b"ai_proxy_tasks ")
        )
        probes, tally.probes = sorted(tally.probes) or [0.0], []
        return Sample(
            time.monotonic() - self._begun,
            pid,
            parse_rss((PROC / f"{pid}/status").read_text()) / 1024,
            len(os.listdir(PROC / f"{pid}/fd")),  # noqa: PTH208 - a Path each would be slow
            tasks,
            tally.answers,
            1000 * percentile(probes, 0.5),
            1000 * percentile(probes, 0.99),
        )

    async def _compare(self, before: Sample) -> list[str]:
        """Wait until files and tasks are as few as before any client came; return what is not."""
        await self._house.without_guest()
        await self._warm()
        after, kept = before, 0

        async def as_before() -> bool:
            nonlocal after, kept
            after, kept = await self._sample(), self._house.kept_connections()
            return after.fds - kept <= before.fds and after.tasks <= before.tasks

        with contextlib.suppress(TimeoutError):
            await until(as_before, "")
            return []
        became = f"{after.fds} ({kept} of them connections to backends) and {after.tasks}"
        return [f"{before.fds} files and {before.tasks} tasks became {became}"]

    async def _leases(self) -> list[str]:
        views: dict[str, Any] = {}

        async def none() -> bool:
            nonlocal views
            views = await self._house.views()
            return not any(view["in_flight"] or view["waiting"] for view in views.values())

        with contextlib.suppress(TimeoutError):
            await until(none, "")
            return []
        return [
            f"{view['id']}: {view['in_flight']} in flight, {view['waiting']} waiting"
            for view in views.values()
        ]

    async def _leave(self) -> list[str]:
        """End the proxy; return what is left of it."""
        code = await self._house.end()
        left, containers = self._house.ours(), self._house.containers()
        log = self._house.log.read_text()
        return [
            *([f"the proxy ended with exit code {code}"] if code else []),
            *([f"{len(left)} processes are left"] if left else []),
            *([f"{len(containers)} containers are left"] if containers else []),
            *(["the proxy logged a traceback"] if "Traceback" in log else []),
        ]

    def _judge(self) -> list[str]:
        first, last, requests = growth(self._plan, self.samples)
        allowed = GROWTH_MIB * max(1.0, requests / 1e6)
        return [
            *(f"{count} x {fault}" for fault, count in self.tally.faults.items()),
            *(
                [f"RSS grew from {first:.1f} to {last:.1f} MiB in {requests:,} requests"]
                if last - first > allowed
                else []
            ),
        ]

    def warm(self) -> list[Sample]:
        """Return the samples of the first life once it was warm."""
        return [one for one in self.samples if self._plan.warm_up <= one.at < self._plan.first_life]

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._begun:7.1f} s: {text}", file=sys.stderr, flush=True)


def growth(plan: Plan, samples: Sequence[Sample]) -> tuple[float, float, int]:
    """Return RSS in MiB when warm and before the first life ends, and the requests between."""
    life = [one for one in samples if plan.warm_up <= one.at < plan.first_life - 1.0]
    tenth = max(1, len(life) // 10)
    first, last = life[:tenth], life[-tenth:]
    start = sum(one.rss_mib for one in first) / len(first)
    end = sum(one.rss_mib for one in last) / len(last)
    return start, end, last[-1].requests - first[0].requests


def report(plan: Plan, soak: Soak, wrong: Sequence[str]) -> str:
    """Return what came of it."""
    start, end, requests = growth(plan, soak.samples)
    warm = soak.warm()
    slopes = {
        "RSS, MiB": slope([(one.at / 3600, one.rss_mib) for one in warm]),
        "open files": slope([(one.at / 3600, one.fds) for one in warm]),
        "tasks": slope([(one.at / 3600, one.tasks) for one in warm]),
    }
    kinds = sorted({*soak.tally.whole, *soak.tally.visible})
    answers = [[kind, f"{soak.tally.whole[kind]:,}", f"{soak.tally.visible[kind]:,}"] for kind in kinds]
    day = time.strftime("%Y-%m-%d", time.gmtime())
    per_million = (end - start) / max(1, requests) * 1e6
    told = f": {per_million:+.2f} MiB per 1,000,000 (at most {GROWTH_MIB:g})" if requests > MANY else ""
    grown = ", ".join(f"{name} {value:+.1f}" for name, value in slopes.items())
    more = ", container, bridge or mount" if soak.docker else ""
    facts = [
        f"{plan.seconds / 60:g} minutes, {plan.idle:,} idle connections, on {day}",
        *(f"{count:,} {event}" for event, count in sorted(soak.tally.events.items())),
        f"RSS from {start:.1f} to {end:.1f} MiB in {requests:,} requests{told}",
        f"growth per hour, once warm: {grown}",
        *(wrong or [f"no answer was wrong; no lease, file, task, process{more} was left"]),
    ]
    table = markdown_table(["what clients did", "whole", "visibly failed"], answers)
    return "\n".join(f"- {fact}" for fact in facts) + "\n\n" + table


def plot(plan: Plan, soak: Soak) -> str:
    """Return the picture of a run."""
    samples = soak.samples

    def line(name: str, value: Callable[[Sample], float]) -> Line:
        return Line(name, [(one.at, value(one)) for one in samples])

    panels = (
        Panel("RSS, MiB", (line("RSS", lambda one: one.rss_mib),)),
        Panel("open files", (line("open files", lambda one: one.fds),)),
        Panel("tasks of the event loop", (line("tasks", lambda one: one.tasks),)),
        Panel(
            "latency of short requests, ms",
            (line("p50", lambda o: o.p50_ms), line("p99", lambda o: o.p99_ms)),
        ),
    )
    return chart(panels, max(plan.seconds, samples[-1].at), soak.marks)


def idle_connections(wanted: int) -> int:
    """Raise the limit of open files as far as it goes; return how many connections may be idle."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted if hard == resource.RLIM_INFINITY else max(0, min(wanted, hard - SPARE_FILES))


@contextmanager
def opened(docker: str) -> Iterator[House]:
    """Make a house, and leave nothing of it.

    Args:
        docker: Where a Docker engine listens that has the image; empty for a private one, where possible.
    """
    with ExitStack() as stack:
        if not docker and reason_for_none() is None:
            docker = stack.enter_context(private_engine()).host
            subprocess.run(
                [sys.executable, MAKE_IMAGE, IMAGE], env={**os.environ, "DOCKER_HOST": docker}, check=True
            )
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-"))
        house = House(Path(folder), docker)
        stack.callback(house.clean_up)
        yield house


def bridges_and_mounts() -> tuple[set[str], set[str]]:
    """Return what a Docker engine and its containers add to the machine."""
    mounts = {line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()}
    return {path.name for path in Path("/sys/class/net").iterdir()}, mounts


def insert(page: str, text: str) -> str:
    """Return a page with the text between the markers of the soak."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Soak; return 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("minutes", type=float, help="how long; a tenth of a minute at least")
    parser.add_argument("--idle", type=int, default=IDLE, help="connections that only stay open")
    parser.add_argument(
        "--docker",
        default="",
        metavar="HOST",
        help=f"a Docker engine that has {IMAGE}; default: a private one",
    )
    parser.add_argument("--write", action="store_true", help="put report and plot into docs/")
    options = parser.parse_args()
    plan = Plan(60 * options.minutes, idle_connections(options.idle))
    before = bridges_and_mounts()
    with opened(options.docker) as house:
        soak = Soak(plan, house)
        wrong = uvloop.run(soak.run())
    if not options.docker:
        for what, then, now in zip(("bridges", "mounts"), before, bridges_and_mounts(), strict=True):
            wrong += [f"{what} are left: {', '.join(sorted(now - then))}"] if now - then else []
    text = report(plan, soak, wrong)
    print(text)
    if options.write:
        PLOT.write_text(plot(plan, soak))
        PAGE.write_text(insert(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
