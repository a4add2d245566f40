"""GPU memory by process, over a hand-written NVML."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ai_proxy.resources.nvidia import find_nvidia

GIB = 2**30


class FakeError(Exception):
    """As NVML's own."""


@dataclass(frozen=True)
class Used:
    """A process on a GPU."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815 - NVML's name


@dataclass
class FakeNvml:
    """GPUs by index, each with its processes; None for one that is lost."""

    gpus: list[list[Used] | None] = field(default_factory=list)
    driver: bool = True
    NVMLError: type[Exception] = FakeError

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise FakeError("NVML Shared Library Not Found")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if not self.driver:
            raise FakeError("Driver Not Loaded")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, device: object) -> Sequence[Used]:  # noqa: N802
        assert isinstance(device, int)
        processes = self.gpus[device]
        if processes is None:
            raise FakeError("GPU is lost")
        return processes


def test_memory_of_a_process_is_summed_over_all_gpus() -> None:
    found = find_nvidia(FakeNvml([[Used(7, GIB), Used(8, 5)], [Used(7, 2 * GIB)]]))

    assert found is not None
    assert found.processes() == {7: 3 * GIB, 8: 5}


def test_processes_are_counted_once_and_those_without_a_gpu_hold_nothing() -> None:
    found = find_nvidia(FakeNvml([[Used(7, GIB), Used(8, 5)]]))

    assert found is not None
    assert found.used_by([7, 7, 99]) == GIB


def test_what_the_driver_does_not_tell_counts_nothing() -> None:
    found = find_nvidia(FakeNvml([[Used(7, None)], None, [Used(8, 5)]]))

    assert found is not None
    assert found.processes() == {7: 0, 8: 5}


def test_without_a_driver_there_is_nothing_to_ask() -> None:
    assert find_nvidia(FakeNvml(driver=False)) is None


def test_a_driver_that_goes_away_is_borne() -> None:
    nvml = FakeNvml([[Used(7, GIB)]])
    found = find_nvidia(nvml)

    nvml.driver = False

    assert found is not None
    assert found.processes() == {}


def test_the_library_itself_is_there_and_a_machine_without_a_gpu_is_a_normal_case() -> None:
    found = find_nvidia()

    assert found is None or all(used >= 0 for used in found.processes().values())
