"""Run-time settings: their types, how to read and write them, and how they override the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ai_proxy.core.durations import format_duration, parse_duration
from ai_proxy.core.errors import RequestError
from ai_proxy.core.options import LogLevel
from ai_proxy.core.routing import near_names
from ai_proxy.core.settings import EngineSettings

type Value = bool | int | float | str

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_DAY = 86_400


class UnknownSettingError(RequestError):
    """There is no run-time setting of that name."""

    code, status, title = "unknown_setting", 404, "Unknown setting"

    def __init__(self, name: str) -> None:
        near = near_names(name, SETTINGS)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(SETTINGS)}"
        super().__init__(f"there is no run-time setting {name[:100]!r}; {hint}")


class InvalidSettingError(RequestError):
    """The setting cannot have that value."""

    code, status, title = "invalid_setting", 422, "Invalid setting"


class Kind(StrEnum):
    """Type of a value."""

    FLAG = "flag"
    NUMBER = "number"
    DURATION = "duration"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class SettingSpec:
    """The specification of a run-time setting.

    Attributes:
        name: Section and key, as in the configuration.
        kind: Type of its value; a duration is a number of seconds.
        description: What it does.
        low: Minimum of a number or a duration.
        high: Maximum of a number or a duration.
        choices: Values of a choice.
    """

    name: str
    kind: Kind
    description: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    def read(self, given: object) -> Value:
        """Read a value, given as itself or as text.

        Raises:
            InvalidSettingError: It is not a valid value; the message names the valid ones.

        >>> SETTINGS["engine.cache_ttl"].read("5m"), SETTINGS["engine.detect"].read("off")
        (300.0, False)
        """
        try:
            value = self._parse(given.strip()) if isinstance(given, str) else given
        except ValueError:
            value = None
        if not self._fits(value):
            raise InvalidSettingError(f"{self.name} must be {self.range}, not {str(given)[:100]!r}")
        assert isinstance(value, bool | int | float | str)  # noqa: S101 - implied by _fits
        return value

    def write(self, value: Value) -> str:
        """Return a value as text that `read` accepts.

        >>> SETTINGS["engine.cache_ttl"].write(300.0), SETTINGS["engine.detect"].write(False)
        ('5m', 'false')
        """
        if self.kind is Kind.FLAG:
            return str(value).lower()
        return format_duration(float(value)) if self.kind is Kind.DURATION else str(value)

    @property
    def range(self) -> str:
        """The valid values, as text.

        >>> SETTINGS["engine.max_network_failures"].range
        'a whole number from 1 to 1000'
        """
        match self.kind:
            case Kind.FLAG:
                return "true or false"
            case Kind.CHOICE:
                return f"one of {', '.join(self.choices)}"
            case Kind.DURATION:
                return f"a duration from {format_duration(self.low)} to {format_duration(self.high)}"
        return f"a whole number from {self.low:g} to {self.high:g}"

    def _parse(self, text: str) -> Value | None:
        match self.kind:
            case Kind.FLAG:
                return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}.get(text.lower())
            case Kind.NUMBER:
                return int(text) if text.isascii() and len(text) < 20 else None
            case Kind.DURATION:
                return parse_duration(text)
        return text.lower()

    def _fits(self, value: object) -> bool:
        if self.kind is Kind.CHOICE:
            return value in self.choices
        if self.kind is Kind.FLAG or isinstance(value, bool):
            return self.kind is Kind.FLAG and isinstance(value, bool)
        if isinstance(value, float) and self.kind is Kind.NUMBER:
            return False
        return isinstance(value, int | float) and self.low <= value <= self.high


SETTINGS: Mapping[str, SettingSpec] = {
    setting.name: setting
    for setting in (
        SettingSpec(
            "engine.detect",
            Kind.FLAG,
            "Whether to detect engines on this machine and offer their models.",
        ),
        SettingSpec(
            "engine.health_latency_threshold_ms",
            Kind.NUMBER,
            "Slowest response of a healthy engine, in milliseconds; a slower engine is degraded.",
            low=1,
            high=600_000,
        ),
        SettingSpec(
            "engine.max_network_failures",
            Kind.NUMBER,
            "Consecutive failed attempts after which an engine counts as unreachable.",
            low=1,
            high=1000,
        ),
        SettingSpec(
            "engine.cache_ttl",
            Kind.DURATION,
            "How long a detection stays valid.",
            low=1,
            high=30 * _DAY,
        ),
        SettingSpec(
            "log.level",
            Kind.CHOICE,
            "Minimum severity of log records.",
            choices=tuple(LogLevel),
        ),
    )
}
"""The run-time settings by name; nothing else in the store is a setting."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The settings in effect.

    Attributes:
        engine: Settings of engine detection.
        log_level: Minimum severity of log records; None for that of the start.
    """

    engine: EngineSettings = field(default_factory=EngineSettings)
    log_level: LogLevel | None = None

    def value(self, name: str) -> Value | None:
        """Return a setting's value by its name; None when it has none.

        >>> RunSettings().value("engine.max_network_failures"), RunSettings().value("log.level")
        (3, None)
        """
        if name == "log.level":
            return self.log_level
        found: Value = getattr(self.engine, name.removeprefix("engine."))
        return found


def setting_spec(name: str) -> SettingSpec:
    """Return the specification of a setting.

    Raises:
        UnknownSettingError: There is no run-time setting of that name.
    """
    if name not in SETTINGS:
        raise UnknownSettingError(name)
    return SETTINGS[name]


def made(stored: Mapping[str, object]) -> Mapping[str, Value]:
    """Return the stored settings with valid names and values.

    >>> made({"engine.cache_ttl": 60, "log.level": "loud", "security.pepper_fingerprint": "5e"})
    {'engine.cache_ttl': 60}
    """
    return {name: value for name in SETTINGS if (value := _valid_value(name, stored)) is not None}


def overlaid(base: RunSettings, stored: Mapping[str, object]) -> RunSettings:
    """Return the settings in effect: stored ones override the configuration.

    Args:
        base: The settings of the configuration.
        stored: The stored settings; unknown names and invalid values are ignored.

    >>> overlaid(RunSettings(), {"engine.detect": False, "log.level": "debug"}).log_level
    <LogLevel.DEBUG: 'debug'>
    """
    values = dict(made(stored))
    level = values.pop("log.level", base.log_level)
    engine = {name.removeprefix("engine."): value for name, value in values.items()}
    return RunSettings(
        replace(base.engine, **engine),  # type: ignore[arg-type]  # their types were checked when read
        None if level is None else LogLevel(str(level)),
    )


def _valid_value(name: str, stored: Mapping[str, object]) -> Value | None:
    try:
        return SETTINGS[name].read(stored[name]) if name in stored else None
    except InvalidSettingError:
        return None
