"""Durations as people write them: `10m`, `90s`, `1h30m`, `500ms`."""

import re

_UNITS = {"d": 86_400_000.0, "h": 3_600_000.0, "m": 60_000.0, "s": 1000.0, "ms": 1.0}
_NUMBER = r"(\d{1,9}(?:\.\d{1,6})?)"

PATTERN = (
    "^(?=[0-9])" + "".join(rf"(?:{_NUMBER}{unit}{'(?!s)' if unit == 'm' else ''})?" for unit in _UNITS) + "$"
)
"""Units in descending order, each at most once; `0` needs none."""

_PATTERN = re.compile(PATTERN, re.ASCII)


def parse_duration(text: str) -> float:
    """Return seconds.

    Raises:
        ValueError: The text is no duration.

    >>> [parse_duration(text) for text in ("10m", "90s", "1h30m", "500ms", "1.5s", "0")]
    [600.0, 90.0, 5400.0, 0.5, 1.5, 0.0]
    """
    if text == "0":
        return 0.0
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError("not a duration")
    amounts = zip(match.groups(), _UNITS.values(), strict=True)
    return sum(float(amount) * unit for amount, unit in amounts if amount) / 1000


def format_duration(seconds: float) -> str:
    """Write seconds the shortest way that `parse_duration` reads back, to the millisecond.

    >>> [format_duration(seconds) for seconds in (600, 5400, 0.5, 90, 0)]
    ['10m', '1h30m', '500ms', '1m30s', '0']
    """
    rest = round(seconds * 1000)
    parts = []
    for unit, size in _UNITS.items():
        amount, rest = divmod(rest, int(size))
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0"
