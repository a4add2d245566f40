import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from ai_proxy.core.logring import LogRing
from ai_proxy.runtimes.process import session
from ai_proxy.runtimes.process.runtime import ProcessRuntime
from ai_proxy.testing.contracts import exit_of

PROXY = Path(__file__).with_name("proxy_to_be_killed.py")


async def lines_heard(ring: LogRing, count: int) -> list[str]:
    written = asyncio.Semaphore(0)
    stop = ring.watch(lambda _: written.release())
    async with asyncio.timeout(60):
        for _ in range(count):
            await written.acquire()
    stop()
    return [line.text for line in ring.tail(count)]


async def test_a_backend_survives_kill_9_of_the_proxy_and_the_next_one_adopts_it(
    runtime: ProcessRuntime, state_dir: Path
) -> None:
    proxy = await asyncio.create_subprocess_exec(sys.executable, PROXY, state_dir, stdout=subprocess.PIPE)
    assert proxy.stdout is not None
    pid = int(await proxy.stdout.readline())
    proxy.send_signal(signal.SIGKILL)
    await proxy.wait()

    (handle,) = await runtime.handles()
    assert (handle.service_id, handle.ref) == ("svc", str(pid))
    waiting = asyncio.gather(exit_of(runtime, handle))
    heard = await lines_heard(runtime.logs("svc"), 20)
    numbers = [int(line.removeprefix("line ")) for line in heard]
    assert numbers == list(range(numbers[0], numbers[0] + 20))

    await runtime.stop(handle, grace=10.0)
    (end,) = await waiting
    assert (end.code, end.detail) == (None, "ended (exit code unknown: adopted)")
    assert session.members(pid) == []
