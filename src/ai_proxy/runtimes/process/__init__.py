"""Services run as child processes of the proxy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import RuntimeKind
from ai_proxy.runtimes.base import RuntimeContext, RuntimeDescriptor


@asynccontextmanager
async def _open(context: RuntimeContext) -> AsyncIterator[Runtime]:
    from ai_proxy.runtimes.process.runtime import ProcessRuntime

    runtime = ProcessRuntime(context.folder / "process", str(context.folder), context.background)
    try:
        yield runtime
    finally:
        await runtime.close()


PROCESS = RuntimeDescriptor(RuntimeKind.PROCESS, _open)
