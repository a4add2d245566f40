"""Memory of NVIDIA GPUs by process, from the driver's library (NVML).

https://docs.nvidia.com/deploy/nvml-api/
"""

import ctypes
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol

from loguru import logger

DRIVER = "libnvidia-ml.so.1"
"""The driver's library."""


class Process(Protocol):
    """A process that uses a GPU (nvmlProcessInfo_t)."""

    @property
    def pid(self) -> int:
        """On the host, not in a container."""

    @property
    def usedGpuMemory(self) -> int | None:  # noqa: N802 - NVML's name
        """Bytes; None when unknown."""


class Nvml(Protocol):
    """The part of the library (`pynvml`) that is used; every function raises `NVMLError`."""

    @property
    def NVMLError(self) -> type[Exception]:  # noqa: N802 - as the other names here
        """No library, no driver, a GPU that is lost..."""

    def nvmlInit(self) -> None:  # noqa: N802
        """Load the library and open the driver."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """Return how many GPUs there are."""

    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> object:  # noqa: N802
        """Return a GPU."""

    def nvmlDeviceGetComputeRunningProcesses(self, device: object, /) -> Sequence[Process]:  # noqa: N802
        """Return the processes that compute on a GPU."""


class NvidiaMemory:
    """Measures the memory of processes on all GPUs together; `find_nvidia` makes one."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml

    def __repr__(self) -> str:
        return f"<NvidiaMemory [{len(self.processes())} processes]>"

    def processes(self) -> dict[int, int]:
        """Return bytes by pid; a GPU that does not respond counts as unused."""
        used: Counter[int] = Counter()
        for index in range(self._count()):
            for process in self._on(index):
                used[process.pid] += process.usedGpuMemory or 0
        return dict(used)

    def used_by(self, pids: Collection[int]) -> int:
        """Return the bytes that some processes hold in total."""
        processes = self.processes()
        return sum(processes.get(pid, 0) for pid in set(pids))

    def _count(self) -> int:
        try:
            return self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            logger.debug("cannot list the NVIDIA GPUs: {}", error)
            return 0

    def _on(self, index: int) -> Sequence[Process]:
        try:
            device = self._nvml.nvmlDeviceGetHandleByIndex(index)
            return self._nvml.nvmlDeviceGetComputeRunningProcesses(device)
        except self._nvml.NVMLError as error:
            logger.debug("cannot list the processes of GPU {}: {}", index, error)
            return ()


def find_nvidia(nvml: Nvml | None = None) -> NvidiaMemory | None:
    """Return what measures NVIDIA GPUs; None without a driver, which is a normal case.

    Args:
        nvml: The library; None for NVIDIA's own.
    """
    if nvml is None:
        if not _has_driver():
            return None
        import pynvml  # 2 MiB that a machine without a driver does without

        return find_nvidia(pynvml)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        logger.debug("no NVIDIA GPUs: {}", error)
        return None
    return NvidiaMemory(nvml)


def _has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True
