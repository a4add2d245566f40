"""The settings in effect while the proxy runs, and a publisher of their changes."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loguru import logger

from ai_proxy.core.run_settings import SETTINGS, Kind, RunSettings, Value, made, overlaid, setting_spec
from ai_proxy.core.store_ports import SettingStore
from ai_proxy.platform.listeners import Listeners


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting and its value now.

    Attributes:
        name: As in the configuration: section and key.
        value: The value in effect; durations in seconds. Null where none is set.
        otherwise: The value without a change at run time: the one of the configuration.
        made: Whether it was changed at run time.
        kind: The kind of its value.
        range: The values it can have, in words.
        description: What it does.
    """

    name: str
    value: Value | None
    otherwise: Value | None
    made: bool
    kind: Kind
    range: str
    description: str


def written(setting: Setting) -> str:
    """Return a setting's value as people write it; `-` where none is set."""
    return "-" if setting.value is None else SETTINGS[setting.name].write(setting.value)


class SettingsHolder:
    """Holds the settings of the store and of the configuration; the store's come first.

    Args:
        store: Keeps the settings that were changed at run time.
        base: The settings of the configuration.

    Attributes:
        current: The settings in effect.
    """

    def __init__(self, store: SettingStore, base: RunSettings) -> None:
        self.current = base
        self._base = base
        self._store = store
        self._made: Mapping[str, Value] = {}
        self._listeners = Listeners[RunSettings]("changes of the settings")
        self._changing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<SettingsHolder [{', '.join(self._made)}]>"

    def listen(self, listener: Callable[[RunSettings], None]) -> Callable[[], None]:
        """Call `listener` whenever other settings hold, until the returned function is called."""
        return self._listeners.add(listener)

    def get(self, name: str) -> Setting:
        """Return a setting and its value.

        Raises:
            UnknownSettingError: There is no setting of that name.
        """
        one = setting_spec(name)
        return Setting(
            name=name,
            value=self.current.value(name),
            otherwise=self._base.value(name),
            made=name in self._made,
            kind=one.kind,
            range=one.range,
            description=one.description,
        )

    def all(self) -> list[Setting]:
        """Return every setting and its value."""
        return [self.get(name) for name in SETTINGS]

    async def load(self) -> None:
        """Read the settings that the store keeps."""
        async with self._changing:
            await self._take()

    async def put(self, name: str, given: object) -> Setting:
        """Change a setting, at once and for good.

        Args:
            name: Of the setting.
            given: Its value, or a text that can be read as one.

        Raises:
            UnknownSettingError: There is no setting of that name.
            InvalidSettingError: The setting cannot have that value.
            StoreError: The store could not keep it; nothing has changed.
        """
        value = setting_spec(name).read(given)
        async with self._changing:
            await self._store.put(name, value)
            await self._take()
        return self.get(name)

    async def drop(self, name: str) -> Setting:
        """Return a setting to the value of the configuration; no error where it has that value already.

        Raises:
            UnknownSettingError: There is no setting of that name.
            StoreError: The store could not keep it; nothing has changed.
        """
        setting_spec(name)
        async with self._changing:
            await self._store.drop(name)
            await self._take()
        return self.get(name)

    async def _take(self) -> None:
        stored = await self._store.all()
        self._made = made(stored)
        for name in sorted(SETTINGS.keys() & stored.keys() - self._made.keys()):
            logger.warning(
                "{} in the store is not {}; using the value of the configuration", name, SETTINGS[name].range
            )
        before, self.current = self.current, overlaid(self._base, stored)
        if self.current != before:
            self._listeners.publish(self.current)
