"""What the benchmark ran on."""

import datetime as dt
import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import Cores


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts that figures depend on; all of them in words."""

    date: str
    cpu: str
    cores: str
    system: str
    python: str
    interpreter: str

    def lines(self) -> list[str]:
        """Return them for people."""
        return [self.date, f"{self.cpu}, {self.cores}", self.system, self.python, self.interpreter]


def describe(cores: Cores) -> Machine:
    """Look at this machine."""
    count = len(os.sched_getaffinity(0))
    shared = f"proxy on core {cores.proxy}, engine on {cores.engine}, load on {cores.load}"
    return Machine(
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cpu=cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=f"{count} cores ({shared if cores.apart else 'one core for everything: figures are rough'})",
        system=f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}",
        python=f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("uvloop", "httptools")),
        interpreter=f"a turn of an empty Python loop takes {loop_ns():.0f} ns",
    )


def loop_ns(turns: int = 2_000_000) -> float:
    """Return what a turn of a counting loop takes, in ns of CPU time: how fast Python is on this machine."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        count = 0
        while count < turns:
            count += 1
        best = min(best, time.process_time() - began)
    return best / turns * 1e9


def cpu_model(cpuinfo: str) -> str:
    r"""Return the name of the first processor in `/proc/cpuinfo`; the text differs by architecture.

    >>> cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2.5GHz\n")
    'Some CPU @ 2.5GHz'
    """
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.machine()
