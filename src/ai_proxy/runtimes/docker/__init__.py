"""Services run as containers of a Docker engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import RuntimeKind
from ai_proxy.runtimes.base import RuntimeContext, RuntimeDescriptor


@asynccontextmanager
async def _open(context: RuntimeContext) -> AsyncIterator[Runtime]:
    from ai_proxy.runtimes.docker.access import own_container
    from ai_proxy.runtimes.docker.runtime import DockerRuntime

    runtime = DockerRuntime(
        context.docker,
        context.owner,
        context.version,
        context.background,
        container=own_container(),
        gpu_memory=context.gpu_memory,
    )
    try:
        yield runtime
    finally:
        await runtime.close()


DOCKER = RuntimeDescriptor(RuntimeKind.DOCKER, _open)
