import asyncio
import threading

import pytest

from ai_proxy.platform.threads import in_thread


async def test_result_and_error_of_the_work_come_back() -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    assert await in_thread(lambda: threading.current_thread().name, "reader") == "reader"
    with pytest.raises(LookupError, match="nothing there"):
        await in_thread(fail, "reader")


async def test_work_that_hangs_neither_keeps_its_caller_nor_the_program() -> None:
    release, ended = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def hang() -> None:
        threads.append(threading.current_thread())
        release.wait(10)
        ended.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await in_thread(hang, "hangs")

    assert threads[0].daemon
    release.set()
    assert await asyncio.to_thread(ended.wait, 10)
    await asyncio.sleep(0)  # its result finds nobody who waits, which is no error
