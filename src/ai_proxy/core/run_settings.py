"""Settings that are changed while the proxy runs: which there are, how they are read, and which hold."""

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
    """No setting of that name can be changed at run time."""

    code, status, title = "unknown_setting", 404, "Unknown setting"

    def __init__(self, name: str) -> None:
        near = near_names(name, KNOBS)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KNOBS)}"
        super().__init__(f"no setting {name[:100]!r} can be changed at run time; {hint}")


class InvalidSettingError(RequestError):
    """The value is not one that the setting can have."""

    code, status, title = "invalid_setting", 422, "Invalid setting"


class Kind(StrEnum):
    """What a value is."""

    FLAG = "flag"
    NUMBER = "number"
    DURATION = "duration"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting that can be changed at run time.

    Attributes:
        name: As in the configuration: section and key.
        kind: What its value is; a duration is a number of seconds.
        description: What it does.
        low: Least value, of a number or a duration.
        high: Largest value, likewise.
        choices: All values, of a choice.
    """

    name: str
    kind: Kind
    description: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    def read(self, given: object) -> Value:
        """Return the value that is given as itself, or as a text that says it.

        Raises:
            InvalidSettingError: It is none; says what would be.

        >>> KNOBS["engine.cache_ttl"].read("5m"), KNOBS["engine.detect"].read("off")
        (300.0, False)
        """
        try:
            value = self._parse(given.strip()) if isinstance(given, str) else given
        except ValueError:
            value = None
        if not self._fits(value):
            raise InvalidSettingError(f"{self.name} must be {self.range}, not {str(given)[:100]!r}")
        assert isinstance(value, bool | int | float | str)  # noqa: S101 - that is how it fits
        return value

    def write(self, value: Value) -> str:
        """Write a value as `read` reads it, and as people do.

        >>> KNOBS["engine.cache_ttl"].write(300.0), KNOBS["engine.detect"].write(False)
        ('5m', 'false')
        """
        if self.kind is Kind.FLAG:
            return str(value).lower()
        return format_duration(float(value)) if self.kind is Kind.DURATION else str(value)

    @property
    def range(self) -> str:
        """Say which values there are.

        >>> KNOBS["engine.max_network_failures"].range
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


KNOBS: Mapping[str, Knob] = {
    setting.name: setting
    for setting in (
        Knob(
            "engine.detect",
            Kind.FLAG,
            "Whether engines that run by themselves are looked for, and offered.",
        ),
        Knob(
            "engine.health_latency_threshold_ms",
            Kind.NUMBER,
            "Slowest answer of a healthy engine, in milliseconds; a slower one is degraded.",
            low=1,
            high=600_000,
        ),
        Knob(
            "engine.max_network_failures",
            Kind.NUMBER,
            "Tries in a row that must fail before an engine counts as unreachable.",
            low=1,
            high=1000,
        ),
        Knob(
            "engine.cache_ttl",
            Kind.DURATION,
            "How long what was found out about an engine holds.",
            low=1,
            high=30 * _DAY,
        ),
        Knob(
            "log.level",
            Kind.CHOICE,
            "The least severe log records that are written.",
            choices=tuple(LogLevel),
        ),
    )
}
"""What can be changed at run time, by name. Nothing else in the store is ever shown as a setting."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The settings that hold.

    Attributes:
        engine: How engines that run by themselves are looked for.
        log_level: The least severe log records that are written; None for what the start said.
    """

    engine: EngineSettings = field(default_factory=EngineSettings)
    log_level: LogLevel | None = None

    def value(self, name: str) -> Value | None:
        """Return a setting's value by its name; None where nothing is said.

        >>> RunSettings().value("engine.max_network_failures"), RunSettings().value("log.level")
        (3, None)
        """
        if name == "log.level":
            return self.log_level
        found: Value = getattr(self.engine, name.removeprefix("engine."))
        return found


def knob(name: str) -> Knob:
    """Return a setting by its name.

    Raises:
        UnknownSettingError: None that can be changed at run time is called that.
    """
    if name not in KNOBS:
        raise UnknownSettingError(name)
    return KNOBS[name]


def made(stored: Mapping[str, object]) -> Mapping[str, Value]:
    """Return those of the stored settings that are known and make sense, by name.

    >>> made({"engine.cache_ttl": 60, "log.level": "loud", "security.pepper_fingerprint": "5e"})
    {'engine.cache_ttl': 60}
    """
    return {name: value for name in KNOBS if (value := _sensible(name, stored)) is not None}


def overlaid(base: RunSettings, stored: Mapping[str, object]) -> RunSettings:
    """Return the settings that hold: what is stored comes before what the configuration says.

    Args:
        base: As the configuration says.
        stored: As the store holds them; what is not known or makes no sense is as if it were not there.

    >>> overlaid(RunSettings(), {"engine.detect": False, "log.level": "debug"}).log_level
    <LogLevel.DEBUG: 'debug'>
    """
    values = dict(made(stored))
    level = values.pop("log.level", base.log_level)
    engine = {name.removeprefix("engine."): value for name, value in values.items()}
    return RunSettings(
        replace(base.engine, **engine),  # type: ignore[arg-type]  # they were read as what they must be
        None if level is None else LogLevel(str(level)),
    )


def _sensible(name: str, stored: Mapping[str, object]) -> Value | None:
    try:
        return KNOBS[name].read(stored[name]) if name in stored else None
    except InvalidSettingError:
        return None
