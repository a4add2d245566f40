"""What tests in several folders share."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil
import pytest
from hypothesis import settings
from tests.rigs.docker_engine import DockerEngine, private_engine, reason_for_none

IMAGE = "ai-proxy/test"
"""This Python with the embedded llama.cpp; made by `scripts/make_image`."""

SHARED = frozenset({"docker_engine", "pebble"})
"""Fixtures that start something costly, which the tests of a folder share."""


settings.register_profile("long", max_examples=4000)
"""With `--hypothesis-profile=long`, what draws examples draws forty times as many."""
settings.register_profile("brief", max_examples=5)
"""For runs whose question is another one, such as whether a version of Python will do."""


def pytest_addoption(parser: pytest.Parser) -> None:
    chaos = parser.getgroup("chaos", "the chaos test")
    chaos.addoption("--chaos-seed", type=int, default=1, help="what its operations are drawn from")
    chaos.addoption("--chaos-operations", type=int, default=200, help="how many there are")


# Tests run in several processes.


def pytest_xdist_auto_num_workers() -> int:
    """Run more processes than there are cores: much of the time, tests wait."""
    return min(8, 2 * (os.cpu_count() or 1))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that share something costly in one process, and before those that may run anywhere."""
    for item in items:
        for part in SHARED.intersection(getattr(item, "fixturenames", ())):
            # Each folder of `tests` has its own, so that no process has all the work.
            item.add_marker(pytest.mark.xdist_group(f"{part} of {item.nodeid.split('/')[1]}"))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


# A run is told what it lacks, and ends in order.


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    insist_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    insist_in_ci(report)
    return report


def insist_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Fail what skips itself because a part is missing: continuous integration has every part."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        report.outcome, report.longrepr = "failed", f"nothing is skipped where CI=true: {reason}"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    distributes = config.option.tx and config.option.dist != "no"
    signal.signal(signal.SIGTERM, _leave_last if distributes else _leave)
    terminal: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if distributes and terminal is not None:
        config.pluginmanager.register(FailuresAtOnce(terminal))


class FailuresAtOnce:
    """Names each failure when it happens; pytest shows them all, in full, at the end."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.write_line(f"FAILED {report.nodeid}", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    signal.signal(signal.SIGTERM, _leave)  # an event loop may have taken this away


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:  # it would wait for pytest-xdist
        if signal.getsignal(signal.SIGTERM) is _ignore:
            os._exit(128 + signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End the run as Ctrl-C does, so that fixtures end what they have started."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)  # who ends it once more, as pytest-xdist does, is in too great a hurry
    raise KeyboardInterrupt


def _leave_last(number: int, frame: FrameType | None) -> None:
    """End the processes that run tests, and then this one, which gives out the work."""
    workers = psutil.Process().children()
    for worker in workers:
        worker.terminate()
    psutil.wait_procs(workers, timeout=30)
    _leave(number, frame)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; unlike `SIG_IGN`, this is not handed on to child processes."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches the processes that a test starts, also when this run is one that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# Docker.


@pytest.fixture(scope="session")
def image_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of `IMAGE` are kept, so that they are collected only once, for all processes."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "image.tar"


@pytest.fixture(scope="session")
def docker_engine(image_archive: Path) -> Iterator[DockerEngine]:
    """A private Docker engine that holds `IMAGE`, for all tests that do not leave it in disorder."""
    with engine_with_image(image_archive) as engine:
        yield engine


@contextmanager
def engine_with_image(archive: Path) -> Iterator[DockerEngine]:
    """Run an engine that holds `IMAGE`; where there can be none, tests skip."""
    if reason := reason_for_none():
        pytest.skip(reason)
    with private_engine() as engine, archive.with_suffix(".lock").open("w") as lock:
        script = Path(__file__).parents[1] / "scripts" / "make_image"
        command = [sys.executable, str(script), "--archive", str(archive), IMAGE]
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(command, env={**os.environ, "DOCKER_HOST": engine.host}, check=True)
        fcntl.flock(lock, fcntl.LOCK_UN)
        yield engine
