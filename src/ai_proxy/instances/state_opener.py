"""Opens the state of a running proxy: at its start, or else as soon as the store can be used."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Self

from loguru import logger

from ai_proxy.core.errors import StoreError, StoreMigrationError
from ai_proxy.core.ports import Clock
from ai_proxy.instances.state import ProxyState
from ai_proxy.platform.data_folder import DataDirError
from ai_proxy.platform.tasks import Background, cancel

RETRY = 5.0
"""Seconds between two attempts to open a store that cannot be used."""


class StateOpener:
    """Opens the state, and tries again while that fails.

    Args:
        opened: Opens it once.
        clock: Times the attempts.
        background: Runs the attempts.

    Attributes:
        current: The state, or why it cannot be used.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractAsyncContextManager[ProxyState]],
        clock: Clock,
        background: Background,
    ) -> None:
        self.current: ProxyState | StoreError = StoreError("the store has not been opened yet")
        self._opened = opened
        self._clock = clock
        self._background = background
        self._stack = AsyncExitStack()
        self._trying: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<StateOpener [{self.current!r}]>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel(self._trying)
        await self._stack.aclose()

    async def open(self) -> ProxyState | None:
        """Try once; return the state, or None where `current` says why it cannot be used.

        Raises:
            DataDirError: Others may write to the data directory.
        """
        try:
            state = await self._stack.enter_async_context(self._opened())
        except StoreError as error:
            if error.detail != getattr(self.current, "detail", ""):
                logger.error("cannot use the store, so clients are refused: {}", error.detail)
            self.current = error
            return None
        self.current = state
        return state

    def when_open(self, use: Callable[[ProxyState], None]) -> None:
        """Call `use` with the state: at once if it is open, else as soon as it can be opened.

        A failed migration is not tried again, since each attempt keeps a copy of the whole store.

        Args:
            use: Called once.
        """
        if isinstance(self.current, ProxyState):
            use(self.current)
        else:
            is_final = isinstance(self.current, StoreMigrationError)
            logger.error(
                "run 'ai-proxy check' for the details, or 'ai-proxy backup restore' to go back to a backup;"
                " {}",
                "then restart the proxy" if is_final else f"the proxy tries again every {RETRY:g} s",
            )
            self._trying = self._background.run(partial(self._try, use), "opening of the store")

    async def _try(self, use: Callable[[ProxyState], None]) -> None:
        while not isinstance(self.current, StoreMigrationError):
            await self._clock.sleep(RETRY)
            try:
                state = await self.open()
            except DataDirError as error:
                logger.error("{}", error)
                continue
            if state is not None:
                logger.warning("the store can be used again")
                use(state)
                return
