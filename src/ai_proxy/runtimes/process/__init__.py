"""Services run as child processes of the proxy."""

from contextlib import AbstractAsyncContextManager, aclosing

from ai_proxy.core.ports import Runtime
from ai_proxy.core.service import RuntimeKind
from ai_proxy.runtimes.base import RuntimeContext, RuntimeDescriptor


def _open(context: RuntimeContext) -> AbstractAsyncContextManager[Runtime]:
    from ai_proxy.runtimes.process.runtime import ProcessRuntime

    return aclosing(ProcessRuntime(context.folder / "process", str(context.folder), context.background))


PROCESS = RuntimeDescriptor(RuntimeKind.PROCESS, _open)
