"""The result of a check."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Level(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    """It works, but may stop working, or could work better."""
    PROBLEM = "problem"
    """Something does not work, or is accessible to others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    Attributes:
        subject: What was checked.
        level: Severity.
        text: Description, one line.
        fix: What to do; empty for nothing.
        path: The file or folder whose mode `repair` changes; None for none.
        mode: The mode to set.
    """

    subject: str
    level: Level
    text: str
    fix: str = ""
    path: Path | None = None
    mode: int = 0


def ok(subject: str, text: str) -> Finding:
    """Return a finding without a fault."""
    return Finding(subject, Level.OK, text)


def warning(subject: str, text: str, fix: str) -> Finding:
    """Return a finding that something works, but may stop, or could work better."""
    return Finding(subject, Level.WARNING, text, fix)


def problem(subject: str, text: str, fix: str) -> Finding:
    """Return a finding that something does not work, or is accessible to others."""
    return Finding(subject, Level.PROBLEM, text, fix)


def count(findings: Iterable[Finding], level: Level) -> int:
    """Return the number of findings at a level.

    >>> count([ok("a", "fine"), problem("b", "broken", "repair it")], Level.PROBLEM)
    1
    """
    return sum(finding.level is level for finding in findings)


def shorten(text: str, most: int = 300) -> str:
    r"""Return a text on one line, cut to a maximum length.

    >>> shorten("one\n  two"), shorten("abcdef", most=4)
    ('one two', 'abc…')
    """
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
