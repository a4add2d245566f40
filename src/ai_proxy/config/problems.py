"""Errors in a configuration file: what is wrong, where, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass

from ai_proxy.core.errors import InvalidConfigError
from ai_proxy.core.routing import near_names

type KeyPath = tuple[str | int, ...]
"""Keys and list indexes from the top of the file: `("services", "llama3", "args", 0)`."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a file; lines and columns count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a path; its position in the file is looked up later.

    Attributes:
        path: The key or value that is wrong or missing.
        message: What is wrong. `{value}` stands for the value as the file has it, references included, since
            the real value may be secret.
        hint: What to do.
        on_key: Whether the key itself is wrong rather than its value.
        position: Its position, when the path does not determine it (a duplicate key).
    """

    path: KeyPath
    message: str
    hint: str
    on_key: bool = False
    position: Position | None = None


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One error of a configuration file, ordered by position; line 0 means the file as a whole."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str

    def __str__(self) -> str:
        """Return the error in the form that editors link to its position.

        >>> print(Problem("config.yaml", 6, 11, "services.llama3.port", "'x' is not a number", "write 8080"))
        config.yaml:6:11: services.llama3.port: 'x' is not a number; write 8080
        """
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, f"{self.message}; {self.hint}") if part)


class ConfigError(InvalidConfigError):
    """The configuration has errors; carries all of them, in the order of the file.

    Attributes:
        problems: The errors, at least one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def render_path(path: KeyPath) -> str:
    """Return a path as users write it.

    >>> render_path(("services", "coder", "command", 2))
    'services.coder.command[2]'
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint with the names similar to a misspelt one, or else another hint.

    >>> did_you_mean("prot", ["port", "host"], "remove it")
    "did you mean 'port'?"
    >>> did_you_mean("xyz", ["port", "host"], "remove it")
    'remove it'
    """
    near = near_names(name, known, count=2)
    return f"did you mean {' or '.join(repr(candidate) for candidate in near)}?" if near else otherwise
