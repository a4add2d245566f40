import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.procfs import Usage, tree, usage


def put(proc: Path, pid: int, *, threads: dict[int, int], children: str, rss: int) -> None:
    for thread, spent in threads.items():
        folder = proc / f"{pid}/task/{thread}"
        folder.mkdir(parents=True)
        (folder / "schedstat").write_text(f"{spent} 0 1\n")
        (folder / "children").write_text(children if thread == pid else "")
    (proc / f"{pid}/status").write_text(f"Name:\tproxy\nVmRSS:\t{rss} kB\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    put(tmp_path, 10, threads={10: 1_000, 11: 200}, children="20 30 ", rss=5_000)
    put(tmp_path, 20, threads={20: 30}, children="21 ", rss=700)
    put(tmp_path, 21, threads={21: 4}, children="", rss=80)
    return tmp_path


def test_tree_holds_children_of_children(proc: Path) -> None:
    assert set(tree(10, proc)) == {10, 20, 21, 30}


def test_usage_adds_up_threads_and_descendants_and_passes_over_those_that_have_ended(proc: Path) -> None:
    assert usage(10, proc) == Usage({10: 1_000, 11: 200, 20: 30, 21: 4}, 5_780)


def test_usage_of_a_process_that_is_gone_is_nothing(proc: Path) -> None:
    assert usage(99, proc) == Usage({}, 0)


def test_cpu_time_counts_new_threads_in_full_and_forgets_ended_ones() -> None:
    before, after = Usage({1: 10**9, 2: 5 * 10**9}, 0), Usage({1: 3 * 10**9, 3: 10**9}, 0)
    assert after.cpu_seconds_since(before) == pytest.approx(3.0)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's /proc")
def test_usage_of_a_real_process_grows_with_what_its_child_computes() -> None:
    before = usage(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", "sum(range(3_000_000)); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        after = usage(os.getpid())
        child.communicate(b"\n")
    assert child.pid in after.cpu_ns
    assert after.cpu_seconds_since(before) > 0.01
