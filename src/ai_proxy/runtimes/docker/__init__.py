"""Services run as containers of a Docker engine."""

from contextlib import AbstractAsyncContextManager, aclosing

from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import RuntimeKind
from ai_proxy.runtimes.base import RuntimeContext, RuntimeDescriptor


def _open(context: RuntimeContext) -> AbstractAsyncContextManager[Runtime]:
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
    return aclosing(runtime)


DOCKER = RuntimeDescriptor(RuntimeKind.DOCKER, _open)
