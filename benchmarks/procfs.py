"""What a process and its children have used, from /proc (proc(5))."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes had used at a moment.

    Attributes:
        cpu_ns: Nanoseconds on a CPU, per thread.
        rss_kib: Resident memory in KiB; pages shared between processes count in each.
    """

    cpu_ns: Mapping[int, int]
    rss_kib: int

    def cpu_seconds_since(self, before: "Usage") -> float:
        """Return CPU seconds used since, by every thread that is still there.

        >>> Usage({1: 5_000_000_000, 2: 1_000_000_000}, 0).cpu_seconds_since(Usage({1: 4_000_000_000}, 0))
        2.0
        """
        return sum(spent - before.cpu_ns.get(thread, 0) for thread, spent in self.cpu_ns.items()) / 1e9


def parse_schedstat(text: str) -> int:
    """Return the nanoseconds on a CPU from a `schedstat` file.

    >>> parse_schedstat("427283 92604 2")
    427283
    """
    return int(text.split(maxsplit=1)[0])


def parse_rss(status: str) -> int:
    r"""Return KiB of resident memory from a `status` file; 0 for a process that has none left.

    >>> parse_rss("Name:\tnginx\nVmRSS:\t    5304 kB\n")
    5304
    """
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def usage(pid: int, proc: Path = PROC) -> Usage:
    """Return what a process and all its descendants have used; nothing for what has ended meanwhile."""
    cpu: dict[int, int] = {}
    rss = 0
    for process in tree(pid, proc):
        rss += parse_rss(_read(proc / f"{process}/status") or "")
        for thread in _threads(process, proc):
            if text := _read(thread / "schedstat"):
                cpu[int(thread.name)] = parse_schedstat(text)
    return Usage(cpu, rss)


def tree(pid: int, proc: Path = PROC) -> Iterator[int]:
    """Yield a process and all its descendants."""
    yield pid
    for thread in _threads(pid, proc):
        for child in (_read(thread / "children") or "").split():
            yield from tree(int(child), proc)


def _threads(pid: int, proc: Path) -> list[Path]:
    try:
        return list((proc / f"{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
