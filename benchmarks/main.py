"""The command: start everything, give out the work in turn, print the report, end everything."""

import argparse
import asyncio
import dataclasses
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop
from tests.rigs.docker_engine import reason_for_none

from benchmarks import idle
from benchmarks.cold_start import cold_start
from benchmarks.machine import Machine, describe
from benchmarks.processes import Cores, assign, free_port, running
from benchmarks.proxies import (
    CONTENDERS,
    DEFAULT,
    DIRECT,
    OURS,
    Contender,
    Recipe,
    Setting,
    UnavailableError,
    environment,
)
from benchmarks.report import insert, report
from benchmarks.results import Results, Sample
from benchmarks.streams import FULL_LOADS, QUICK_LOADS, stream_loads
from benchmarks.works import FULL, QUICK, WORKS, Scale, Target, first_answer, once

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"
START_TIMEOUT = 120.0
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do."""

    contenders: tuple[Contender, ...]
    scale: Scale
    cores: Cores


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has brought.

    Attributes:
        versions: Of those that took part, by name.
        results: Everything measured.
        absent: Who did not take part, and why.
    """

    versions: dict[str, str]
    results: Results
    absent: list[str]


class Bench:
    """One run: the engine, those that take part, and what they were seen to do."""

    def __init__(self, plan: Plan, folder: Path, stack: ExitStack) -> None:
        """Prepare a run.

        Args:
            plan: What to do.
            folder: Where contenders keep their files; removed by the caller.
            stack: Ends every process that was started, when it is closed.
        """
        self._plan = plan
        self._folder = folder
        self._stack = stack
        self._engine = free_port()
        self._targets: list[Target] = []
        self._samples: list[Sample] = []
        self._versions: dict[str, str] = {}
        self._absent: list[str] = []

    async def run(self) -> Outcome:
        """Do it all."""
        direct = await self._start_engine()
        for contender in self._plan.contenders:
            try:
                await self._start(contender)
            except UnavailableError as error:
                self._absent.append(f"{contender.name} did not take part: {error}")
                _say(self._absent[-1])
        await self._give_out_work(direct)
        return Outcome(self._versions, Results(self._samples), self._absent)

    async def _start_engine(self) -> Target:
        command = (sys.executable, "-m", "benchmarks.engine", "--port", str(self._engine))
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = self._stack.enter_context(
            running(command, self._plan.cores.engine, self._folder / "engine.log", env)
        )
        target = Target(Contender(DIRECT, _no_recipe, prefix=""), self._engine, None, self._engine)
        await _answering(target, process, self._folder / "engine.log")
        return target

    async def _start(self, contender: Contender) -> None:
        """Start a contender as often as it is to be timed, and leave it running the last time."""
        _say(f"starting {contender.name}")
        folder = self._folder / contender.name
        folder.mkdir()
        setting = Setting(free_port(), self._engine, folder)
        recipe = contender.prepare(setting)
        for _ in range(min(contender.starts, self._plan.scale.starts) - 1):
            with ExitStack() as stack:
                await self._timed_start(contender, recipe, setting, stack)
        self._targets.append(await self._timed_start(contender, recipe, setting, self._stack))
        self._versions[contender.name] = recipe.version

    async def _timed_start(
        self, contender: Contender, recipe: Recipe, setting: Setting, stack: ExitStack
    ) -> Target:
        log, begun = setting.folder / "output.log", time.perf_counter()
        process = stack.enter_context(
            running(recipe.command, self._plan.cores.proxy, log, environment(setting, recipe))
        )
        target = Target(contender, setting.port, process.pid, self._engine)
        await _answering(target, process, log)
        self._samples.append(Sample(contender.name, "start", {"seconds": time.perf_counter() - begun}))
        return target

    async def _give_out_work(self, direct: Target) -> None:
        scale = self._plan.scale
        for work in WORKS:
            _say(f"{work.name}: {1 if work.once else scale.rounds} rounds")
            takers = [t for t in self._targets if t.contender.verbatim or not work.verbatim]
            for _ in range(1 if work.once else scale.rounds):
                for target in [direct, *takers] if work.direct else takers:
                    self._samples.append(await once(work, target, scale))
                    gc.collect()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = _parser().parse_args(arguments)
    if not Path("/proc/self/schedstat").exists():
        print("The benchmark reads CPU times from /proc: run it on Linux.", file=sys.stderr)
        return 1
    if options.cold_start:
        return _cold_start()
    if options.idle:
        return _idle(quick=options.quick)
    if options.streams:
        return _streams(quick=options.quick)
    plan = Plan(
        tuple(contender for contender in CONTENDERS if contender.name in _chosen(options)),
        QUICK if options.quick else FULL,
        assign(sorted(os.sched_getaffinity(0))),
    )
    _allow_many_connections()
    machine = describe(plan.cores)
    try:
        outcome = uvloop.run(_bench(plan))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say("interrupted; everything that was started has been ended")
        return INTERRUPTED
    text = report(machine, outcome.versions, plan.scale.rounds, outcome.results, outcome.absent)
    print(text)
    _keep(options, machine, outcome, text)
    return 0 if set(outcome.versions) >= set(_chosen(options)) & {OURS} else 1


def _cold_start() -> int:
    if reason := reason_for_none():
        print(f"The cold start is measured with Docker: {reason}.", file=sys.stderr)
        return 1
    cores = assign(sorted(os.sched_getaffinity(0)))
    print("\n".join(f"- {fact}" for fact in describe(cores).lines()), cold_start(cores), sep="\n\n")
    return 0


def _idle(*, quick: bool) -> int:
    cores = assign(sorted(os.sched_getaffinity(0)))
    seconds = idle.QUICK_SECONDS if quick else idle.SECONDS
    found = idle.measure(cores, seconds)
    print(
        "\n".join(f"- {fact}" for fact in describe(cores).lines()), idle.section(found, seconds), sep="\n\n"
    )
    return int(not all(map(idle.holds, found)))


def _streams(*, quick: bool) -> int:
    cores = assign(sorted(os.sched_getaffinity(0)))
    _allow_many_connections()
    machine = describe(cores)
    text, lost = uvloop.run(stream_loads(cores, QUICK_LOADS if quick else FULL_LOADS))
    print("\n".join(f"- {fact}" for fact in machine.lines()), text, sep="\n\n")
    return 1 if lost else 0


async def _bench(plan: Plan) -> Outcome:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # narrows the type
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    os.sched_setaffinity(0, {plan.cores.load})
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        return await Bench(plan, Path(folder), stack).run()


async def _answering(target: Target, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not await first_answer(target):
        if process.poll() is not None:
            raise UnavailableError(f"it ended with exit code {process.returncode}. {_tail(log)}")
        if time.monotonic() > deadline:
            raise UnavailableError(f"no good answer within {START_TIMEOUT:.0f} s. {_tail(log)}")
        await asyncio.sleep(0.005)


def _keep(options: argparse.Namespace, machine: Machine, outcome: Outcome, text: str) -> None:
    if options.json is not None:
        facts = {
            "machine": dataclasses.asdict(machine),
            "versions": outcome.versions,
            "absent": outcome.absent,
            "samples": [dataclasses.asdict(sample) for sample in outcome.results.samples],
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if options.write:
        PAGE.write_text(insert(PAGE.read_text(), text))


def _parser() -> argparse.ArgumentParser:
    names = [contender.name for contender in CONTENDERS]
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure what ai-proxy costs, next to other proxies."
    )
    parser.add_argument("--all", action="store_true", help=f"every contender: {', '.join(names)}")
    parser.add_argument(
        "--only", type=_names, metavar="NAMES", help="only these, separated by commas: nginx,ai-proxy"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: under a minute")
    parser.add_argument(
        "--cold-start",
        action="store_true",
        help="only how long the first request to a stopped container waits beyond the container",
    )
    parser.add_argument(
        "--idle",
        action="store_true",
        help="only what ai-proxy and nginx take while nobody asks them anything; under two minutes",
    )
    parser.add_argument(
        "--streams",
        action="store_true",
        help="only streams under load, through ai-proxy alone: 100 a minute of 20 s each, then 1,000 short",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep everything that was measured there")
    parser.add_argument("--write", action="store_true", help="put the report into docs/performance.md")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    known = [contender.name for contender in CONTENDERS]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(
            f"no contender is called {unknown[0]!r}; there are {', '.join(known)}"
        )
    return names


def _chosen(options: argparse.Namespace) -> tuple[str, ...]:
    if options.only:
        return tuple(options.only)
    return tuple(contender.name for contender in CONTENDERS) if options.all else DEFAULT


def _allow_many_connections() -> None:
    """Raise the limit of open files as far as allowed; what is started inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-5:]
    return f"It said: {' | '.join(lines)}" if lines else "It said nothing."


def _no_recipe(setting: Setting) -> Recipe:
    raise UnavailableError(f"the engine on port {setting.engine} is not a proxy")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
