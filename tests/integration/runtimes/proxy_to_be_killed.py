"""Starts a process service as a proxy does, prints its handle's pid, and waits to be killed."""

import asyncio
import sys
from pathlib import Path

from ai_proxy.core.service import ProcessLaunch, Service
from ai_proxy.platform.tasks import Background
from ai_proxy.runtimes.process.runtime import ProcessRuntime
from ai_proxy.testing.contracts import exit_of, start

TALKER = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done"


async def main() -> None:
    runtime = ProcessRuntime(Path(sys.argv[1]), owner=sys.argv[1], background=Background())
    launch = ProcessLaunch(("sh", "-c", TALKER))
    handle = await start(runtime, Service("svc", "generic", "generic", launch, config_hash="1"))
    sys.stdout.write(f"{handle.ref}\n")
    sys.stdout.flush()
    await exit_of(runtime, handle)


if __name__ == "__main__":
    asyncio.run(main())
