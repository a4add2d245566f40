"""What a proxy costs while nobody asks it anything: scripts/bench --idle.

Both wait for requests at the same time, each on the proxy's core. ai-proxy has an API key, a store in SQLite
and an external service that is down, so that it follows its store and looks for the service to come back.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Cores, free_port, running
from benchmarks.procfs import usage
from benchmarks.proxies import CONTENDERS, OURS, REFERENCE, Contender, Recipe, Setting, environment
from benchmarks.report import markdown_table

SECONDS, QUICK_SECONDS = 60.0, 15.0
SETTLE = 20.0
"""Seconds after the start that do not count: the external service is given up meanwhile."""
LISTEN_WITHIN = 30.0
CPU_LIMIT, RSS_LIMIT = 0.3, 70.0
"""Most that ai-proxy may take: percent of a core, and MiB at start."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What one of them took.

    Attributes:
        name: Its name.
        rss_mib: Resident memory when it had started.
        cpu_percent: Of one core, while it was idle.
    """

    name: str
    rss_mib: float
    cpu_percent: float


def measure(cores: Cores, seconds: float) -> Sequence[Idle]:
    """Return what ai-proxy and nginx take in that many seconds of idleness.

    Raises:
        UnavailableError: One of them cannot be prepared.
        TimeoutError: One of them does not listen.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        pids = {
            contender.name: _start(contender, Path(folder) / contender.name, cores, stack)
            for contender in CONTENDERS
            if contender.name in (OURS, REFERENCE)
        }
        time.sleep(SETTLE)
        rss = {name: usage(pid).rss_kib / 1024 for name, pid in pids.items()}
        before, begun = {name: usage(pid) for name, pid in pids.items()}, time.perf_counter()
        time.sleep(seconds)
        took = time.perf_counter() - begun
        return [
            Idle(name, rss[name], 100 * usage(pid).cpu_seconds_since(before[name]) / took)
            for name, pid in pids.items()
        ]


def section(found: Sequence[Idle], seconds: float) -> str:
    """Return what is told of the measurement."""
    lines = [
        [one.name, f"{one.cpu_percent:.3f}", f"{one.rss_mib:.1f}", "" if holds(one) else "MISSED"]
        for one in found
    ]
    limit = [f"{OURS} must hold", f"{CPU_LIMIT:g}", f"{RSS_LIMIT:g}", ""]
    head = [f"idle for {seconds:g} s", "CPU, % of a core", "RSS at start, MiB", ""]
    return markdown_table(head, [*lines, limit])


def holds(one: Idle) -> bool:
    """Tell whether it is within the limits; nginx has none."""
    return one.name != OURS or (one.cpu_percent < CPU_LIMIT and one.rss_mib <= RSS_LIMIT)


def _start(contender: Contender, folder: Path, cores: Cores, stack: ExitStack) -> int:
    """Start one in front of an engine that is down; return its process."""
    folder.mkdir()
    setting = Setting(free_port(), free_port(), folder)
    recipe = contender.prepare(setting)
    env = environment(setting, recipe)
    if contender.name == OURS:
        _make_key(recipe, env, folder)
    process = stack.enter_context(running(recipe.command, cores.proxy, folder / "output.log", env))
    deadline = time.monotonic() + LISTEN_WITHIN
    while not _listens(setting.port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"{contender.name} does not listen: {(folder / 'output.log').read_text()}")
        time.sleep(0.05)
    return process.pid


def _make_key(recipe: Recipe, env: dict[str, str], folder: Path) -> None:
    command = (recipe.command[0], "api-keys", "create", "idle")
    subprocess.run(command, env=env, cwd=folder, capture_output=True, check=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
