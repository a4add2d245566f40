"""What a check comes to."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and may not for long, or not as well as it could."""
    PROBLEM = "problem"
    """Something does not work, or is open to others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        subject: What was looked at.
        level: How bad it is.
        text: What was found, in a line.
        fix: What to do about it; empty for nothing.
        path: The file or folder whose mode is to be changed, where that puts it right.
        mode: The mode it is to have.
    """

    subject: str
    level: Level
    text: str
    fix: str = ""
    path: Path | None = None
    mode: int = 0


def ok(subject: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(subject, Level.OK, text)


def warning(subject: str, text: str, fix: str) -> Finding:
    """Return that something may not last, or could be better."""
    return Finding(subject, Level.WARNING, text, fix)


def problem(subject: str, text: str, fix: str) -> Finding:
    """Return that something does not work, or is open to others."""
    return Finding(subject, Level.PROBLEM, text, fix)


def count(findings: Iterable[Finding], level: Level) -> int:
    """Return how many are of a level.

    >>> count([ok("a", "fine"), problem("b", "broken", "mend it")], Level.PROBLEM)
    1
    """
    return sum(finding.level is level for finding in findings)


def shorten(text: str, most: int = 300) -> str:
    r"""Return a text on one line, and not too long.

    >>> shorten("one\n  two"), shorten("abcdef", most=4)
    ('one two', 'abc…')
    """
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
