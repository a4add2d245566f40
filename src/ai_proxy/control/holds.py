"""Remembers which services were stopped by hand, so that a restart of the proxy does not start them."""

from collections.abc import Collection

import msgspec
from loguru import logger

from ai_proxy.core.errors import StoreError
from ai_proxy.core.store_ports import SettingStore


class Holds:
    """Stores the ids of services stopped by hand; if that fails, they stay stopped until the proxy ends.

    Args:
        settings: The store's settings.
        owner: The proxy that runs the services: several may share a store.
    """

    def __init__(self, settings: SettingStore, owner: str) -> None:
        self._settings = settings
        self._name = f"services.stopped_by_hand.{owner}"

    def __repr__(self) -> str:
        return f"<Holds [{self._name}]>"

    async def load(self) -> set[str]:
        """Return the services that were stopped by hand."""
        try:
            return msgspec.convert(await self._settings.get(self._name) or [], set[str])
        except (StoreError, msgspec.ValidationError) as error:
            logger.warning("cannot read which services were stopped by hand, so any may start: {}", error)
            return set()

    async def save(self, held: Collection[str]) -> None:
        """Remember these services and no others."""
        try:
            await self._settings.put(self._name, sorted(held))
        except StoreError as error:
            logger.warning(
                "cannot save which services were stopped by hand, so they may start after a restart: {}",
                error,
            )
