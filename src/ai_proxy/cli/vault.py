"""How commands reach what lasts: they open it themselves, so that they work whether or not a proxy runs."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy.vault import Vault


def with_vault[T](config: Path | None, work: "Callable[[Vault], Awaitable[T]]") -> T:
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
    from ai_proxy.control.timing import SystemClock
    from ai_proxy.vault import open_vault

    path = find_config(config, os.environ, Path.cwd())
    settings = load_config(path, os.environ) if path else Config()

    async def run() -> T:
        async with open_vault(settings, SystemClock()) as vault:
            return await work(vault)

    return asyncio.run(run())
