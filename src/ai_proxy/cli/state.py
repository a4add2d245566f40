"""Access of commands to the store: they open it themselves, so they work whether or not a proxy runs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy.instances.state import ProxyState

OWNER, LOCAL = "owner", "local"
"""Actor and origin of commands in the audit log."""


def with_state[T](config: Path | None, work: "Callable[[ProxyState], Awaitable[T]]") -> T:
    """Open the persisted state, and return the result of `work`.

    A user who can open the files is the owner and needs no key. A running proxy sees changes within a second.

    Args:
        config: The configuration file given on the command line; None for the default one.
        work: Reads or changes the state.

    Raises:
        InvalidConfigError: The configuration has errors.
        StoreError: The store cannot be opened, read or written.
    """
    import asyncio
    import os

    from ai_proxy.config.load import configuration
    from ai_proxy.core.options import LogLevel
    from ai_proxy.instances.state import open_state
    from ai_proxy.platform.clock import SystemClock
    from ai_proxy.telemetry.logs import configure

    configure(LogLevel.WARNING)
    _, settings = configuration(config, os.environ)

    async def run() -> T:
        async with open_state(settings, SystemClock()) as state:
            return await work(state)

    return asyncio.run(run())


@dataclass(slots=True)
class AuditEvent:
    """What a command does, for the audit log.

    Attributes:
        what: The action and its target.
        detail: Details; empty for none.
    """

    what: str
    detail: str = ""


@asynccontextmanager
async def audited(state: "ProxyState", what: str) -> AsyncIterator[AuditEvent]:
    """Record what the context does in the audit log, whether it succeeds or fails.

    A change stays when the log cannot be written; that is logged as an error.

    Args:
        state: The state with the audit log.
        what: The action and its target; the context may complete the event.
    """
    from ai_proxy.core.errors import ProxyError

    event = AuditEvent(what)
    try:
        yield event
    except ProxyError as error:
        await _record(state, event.what, error.code, error.detail)
        raise
    await _record(state, event.what, "ok", event.detail)


async def _record(state: "ProxyState", what: str, result: str, detail: str) -> None:
    from loguru import logger

    from ai_proxy.core.errors import StoreError

    try:
        await state.security.audit.record(OWNER, what, LOCAL, result, detail)
    except StoreError as error:
        logger.error("cannot record {} in the audit log: {}", what, error)
