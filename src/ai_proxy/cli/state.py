"""How commands reach what lasts: they open it themselves, so that they work whether or not a proxy runs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy.instances.state import ProxyState

OWNER, LOCAL = "owner", "local"
"""Who runs commands, and from where, as the audit log says it."""


def with_state[T](config: Path | None, work: "Callable[[ProxyState], Awaitable[T]]") -> T:
    """Open what lasts, do something with it, and return what comes of that.

    Who may open the files is the owner, and needs no key. A proxy that runs hears of changes within a second.

    Args:
        config: The configuration file chosen on the command line; None for the usual one.
        work: Does it.

    Raises:
        InvalidConfigError: The configuration has errors.
        StoreError: It cannot be opened, read or written.
    """
    import asyncio
    import os

    from ai_proxy.config.load import find_config, load_config
    from ai_proxy.config.schema import Config
    from ai_proxy.core.options import LogLevel
    from ai_proxy.instances.state import open_state
    from ai_proxy.platform.clock import SystemClock
    from ai_proxy.telemetry.logs import configure

    configure(LogLevel.WARNING)
    path = find_config(config, os.environ, Path.cwd())
    settings = load_config(path, os.environ) if path else Config()

    async def run() -> T:
        async with open_state(settings, SystemClock()) as state:
            return await work(state)

    return asyncio.run(run())


@dataclass(slots=True)
class Deed:
    """What a command does, for the audit log.

    Attributes:
        what: The action, and to what.
        detail: In words; empty for nothing to add.
    """

    what: str
    detail: str = ""


@asynccontextmanager
async def audited(state: "ProxyState", what: str) -> AsyncIterator[Deed]:
    """Write what is done within to the audit log, whatever comes of it.

    Where the log cannot be written, the change has been made all the same: that is logged as an error.

    Args:
        state: Where to.
        what: The action, and to what as far as that is known before; the deed may be told more.
    """
    from ai_proxy.core.errors import ProxyError

    deed = Deed(what)
    try:
        yield deed
    except ProxyError as error:
        await _record(state, deed.what, error.code, error.detail)
        raise
    await _record(state, deed.what, "ok", deed.detail)


async def _record(state: "ProxyState", what: str, result: str, detail: str) -> None:
    from loguru import logger

    from ai_proxy.core.errors import StoreError

    try:
        await state.security.audit.record(OWNER, what, LOCAL, result, detail)
    except StoreError as error:
        logger.error("{} is not in the audit log: {}", what, error)
