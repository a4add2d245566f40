"""The settings that hold while the proxy runs, and who wants to know when they change."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loguru import logger

from ai_proxy.core.run_settings import KNOBS, Kind, RunSettings, Value, knob, made, overlaid
from ai_proxy.core.store_ports import SettingStore
from ai_proxy.platform.listeners import Listeners


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as it stands.

    Attributes:
        name: As in the configuration: section and key.
        value: What holds; durations in seconds. Null where nothing is said.
        otherwise: What holds without what was made at run time: as the configuration says.
        made: Whether it was made at run time.
        kind: What its value is.
        range: Which values there are, in words.
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
    """Return a setting's value as people write it; `-` where nothing is said."""
    return "-" if setting.value is None else KNOBS[setting.name].write(setting.value)


class SettingsHolder:
    """Holds the settings that the store and the configuration make together; the store's come first.

    Args:
        store: Where settings are kept.
        base: As the configuration says.

    Attributes:
        current: The settings that hold.
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
        """Return a setting as it stands.

        Raises:
            UnknownSettingError: None is called that.
        """
        one = knob(name)
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
        """Return every setting as it stands."""
        return [self.get(name) for name in KNOBS]

    async def load(self) -> None:
        """Take over what the store holds."""
        async with self._changing:
            await self._take()

    async def put(self, name: str, given: object) -> Setting:
        """Make a setting, at once and for good.

        Args:
            name: Of the setting.
            given: Its value, or a text that says it.

        Raises:
            UnknownSettingError: None is called that.
            InvalidSettingError: It cannot have that value.
            StoreError: It could not be kept, and nothing has changed.
        """
        value = knob(name).read(given)
        async with self._changing:
            await self._store.put(name, value)
            await self._take()
        return self.get(name)

    async def drop(self, name: str) -> Setting:
        """Go back to what the configuration says; no error where that holds already.

        Raises:
            UnknownSettingError: None is called that.
            StoreError: It could not be kept, and nothing has changed.
        """
        knob(name)
        async with self._changing:
            await self._store.drop(name)
            await self._take()
        return self.get(name)

    async def _take(self) -> None:
        stored = await self._store.all()
        self._made = made(stored)
        for name in sorted(KNOBS.keys() & stored.keys() - self._made.keys()):
            logger.warning(
                "{} in the store is not {}; what the configuration says holds", name, KNOBS[name].range
            )
        before, self.current = self.current, overlaid(self._base, stored)
        if self.current != before:
            self._listeners.publish(self.current)
