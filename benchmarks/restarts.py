"""How long it takes to restart a proxy in the background: started, answering, stopped, as people do it.

python -m benchmarks.restarts [ROUNDS]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.processes import free_port
from benchmarks.report import markdown_table

ROUNDS = 20
LIMIT = 3.0
"""Seconds, at most, for the median restart."""
PROGRAM = Path(sys.executable).with_name("ai-proxy")


@dataclass(frozen=True, slots=True)
class Restart:
    """Seconds that one took.

    Attributes:
        start: Until `proxy start` came back and the proxy had answered.
        stop: Until `proxy stop` came back.
    """

    start: float
    stop: float


def section(restarts: Sequence[Restart]) -> str:
    """Return what is told of the measurement."""
    whole = [one.start + one.stop for one in restarts]
    held = "held" if median(whole) < LIMIT else "MISSED"
    lines = [
        ["start until it answers, s", f"{median(one.start for one in restarts):.2f}", "", ""],
        ["stop, s", f"{median(one.stop for one in restarts):.2f}", "", ""],
        ["restart, s", f"{median(whole):.2f}", f"{LIMIT:g}", held],
        ["slowest restart, s", f"{max(whole):.2f}", "", ""],
    ]
    return markdown_table([f"medians of {len(restarts)} restarts", "measured", "less than", ""], lines)


def restart(port: int, environment: Mapping[str, str]) -> Restart:
    """Start a proxy, ask it, and stop it.

    Raises:
        subprocess.CalledProcessError: It did not start, or not stop.
        RuntimeError: It did not answer, or the status was wrong.
    """
    begin = time.perf_counter()
    _run(environment, "start", "--port", str(port))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
        answer.read()
    answered = time.perf_counter()
    _expect(environment, ["running"])
    stopping = time.perf_counter()
    _run(environment, "stop", "--port", str(port))
    stopped = time.perf_counter()
    _expect(environment, [])
    return Restart(answered - begin, stopped - stopping)


def _run(environment: Mapping[str, str], *words: str) -> str:
    command = [str(PROGRAM), "--format", "json", "proxy", *words]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def _expect(environment: Mapping[str, str], states: list[str]) -> None:
    found = [one["state"] for one in json.loads(_run(environment, "status"))["data"]]
    if found != states:
        raise RuntimeError(f"the status is {found}, not {states}")


def main(rounds: int) -> int:
    """Measure; return 1 when the limit is missed. The first round, which makes the store, does not count."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="aip-") as folder:
        config = Path(folder) / "config.yaml"
        config.touch()
        places = {"AI_PROXY_DATA_DIR": f"{folder}/data", "AI_PROXY_RUN_DIR": f"{folder}/run"}
        environment = {**os.environ, **places, "AI_PROXY_CONFIG": str(config), "AI_PROXY_DETECT": "0"}
        try:
            restarts = [restart(port, environment) for _ in range(rounds + 1)][1:]
        finally:
            _run(environment, "stop", "--all")
    print(section(restarts))
    return int(median(one.start + one.stop for one in restarts) >= LIMIT)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
