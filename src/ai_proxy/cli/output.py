"""Output of commands: results on standard output as text or JSON, errors on standard error."""

import itertools
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ai_proxy.core.errors import ProxyError
from ai_proxy.core.options import LogLevel
from ai_proxy.core.terminal import IN_JSON, visible
from ai_proxy.platform.run_folder import RunDirError

OK, USER_ERROR, INTERNAL_ERROR, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

FORMAT_VERSION = "1.0"
"""Version of the JSON that commands print; an incompatible change increases it."""


class Format(StrEnum):
    """Format of a command's result: text for people, JSON for scripts."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Globals:
    """Options given before the command, in `ctx.obj`."""

    format: Format = Format.TEXT
    log_level: LogLevel = LogLevel.INFO


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file. Default: $AI_PROXY_CONFIG, ./config.yaml, or the one of the user.",
        dir_okay=False,
        show_default=False,
    ),
]
FormatOption = Annotated[Format | None, typer.Option("--format", help="Output format.")]
PortOption = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="Port of the ai-proxy, where several run.")
]
RunDirOption = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        envvar="AI_PROXY_RUN_DIR",
        help="Folder in which ai-proxy keeps its sockets.",
        file_okay=False,
    ),
]


class UserError(Exception):
    """An error that the user can fix; the message says how.

    Attributes:
        code: Stable name, for scripts.
    """

    def __init__(self, message: str, code: str = "error") -> None:
        super().__init__(message)
        self.code = code


def say(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text, which may come from elsewhere: at a terminal, it cannot control that.

    Args:
        text: The text.
        err: Whether to print to standard error.
        nl: Whether to end the line.
    """
    stream = sys.stderr if err else sys.stdout
    typer.echo(visible(text) if stream.isatty() else text, err=err, nl=nl)


def show(ctx: typer.Context, chosen: Format | None, data: object, text: Callable[[], None]) -> None:
    """Print a command's result.

    Args:
        ctx: Context of the command.
        chosen: The format given after the command; None to use the one before it.
        data: The result for scripts.
        text: Prints the result as text.
    """
    if output_format(ctx, chosen) is Format.JSON:
        line = json.dumps({"version": FORMAT_VERSION, "data": data}, ensure_ascii=False)
        say(line.translate(IN_JSON))
    else:
        text()


def output_format(ctx: typer.Context, chosen: Format | None) -> Format:
    """Return the format given after the command, or else before it."""
    return chosen or (ctx.find_object(Globals) or Globals()).format


def spinner(what: str) -> AbstractContextManager[object]:
    """Show a spinner at a terminal while the context lasts."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(what)


def show_error(error: Exception, argv: Sequence[str]) -> int:
    """Print an error to standard error in the format of the command line; return the exit code."""
    exit_code, code, message = explain(error)
    if exit_code == INTERNAL_ERROR and option_value(argv, "--log-level") in ("debug", "trace"):
        traceback.print_exception(error)
    if option_value(argv, "--format") == Format.JSON:
        message = json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False)
        say(message.translate(IN_JSON), err=True)
    else:
        say(f"Error: {message}", err=True)
    return exit_code


def explain(error: Exception) -> tuple[int, str, str]:
    """Return the exit code, the code and the message of an error.

    >>> explain(UserError("no such file", "missing"))
    (1, 'missing', 'no such file')
    >>> explain(KeyError("x"))
    (2, 'internal', "unexpected KeyError: 'x'; run it again with --log-level debug for more")
    """
    match error:
        case UserError() | RunDirError() if error.code != ProxyError.code:
            return USER_ERROR, error.code, str(error)
        case UserError():
            return INTERNAL_ERROR, error.code, str(error)
        case ProxyError() if error.code != ProxyError.code:
            return USER_ERROR, error.code, error.detail
        case typer.TyperException():
            return USER_ERROR, "usage", error.format_message()
    hint = "run it again with --log-level debug for more"
    return INTERNAL_ERROR, "internal", f"unexpected {type(error).__name__}: {error}; {hint}"


def option_value(argv: Sequence[str], option: str) -> str | None:
    """Return an option's last value on a command line, which may be invalid.

    >>> [option_value(argv, "--format") for argv in (["ps", "--format", "json"], ["--format=text", "ps"])]
    ['json', 'text']
    >>> [option_value(argv, "--format") for argv in (["ps", "--format"], [])]
    [None, None]
    """
    value = None
    for word, following in itertools.zip_longest(argv, argv[1:]):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.removeprefix(f"{option}=")
    return value
