"""What commands print: results on standard output, for people or for scripts; errors on standard error."""

import itertools
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ai_proxy.core.errors import ProxyError
from ai_proxy.core.options import LogLevel
from ai_proxy.platform.run_folder import RunDirError

OK, USER_ERROR, INTERNAL_ERROR, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

FORMAT_VERSION = "1.0"
"""Of the JSON that commands print; a change that breaks scripts changes it."""


class Format(StrEnum):
    """For whom a result is printed."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Globals:
    """Options that stand before the command; lie in `ctx.obj`."""

    format: Format = Format.TEXT
    log_level: LogLevel = LogLevel.INFO


FormatOption = Annotated[Format | None, typer.Option("--format", help="Print for people or for scripts.")]
PortOption = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="Of the ai-proxy, where several run.")
]
RunDirOption = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", envvar="AI_PROXY_RUN_DIR", help="Where ai-proxy keeps its sockets.", file_okay=False
    ),
]


class UserError(Exception):
    """Something the user can put right; the message says how.

    Attributes:
        code: Stable name, for scripts.
    """

    def __init__(self, message: str, code: str = "error") -> None:
        super().__init__(message)
        self.code = code


def show(ctx: typer.Context, chosen: Format | None, data: object, text: Callable[[], None]) -> None:
    """Print a command's result.

    Args:
        ctx: Of the command.
        chosen: The format asked for after the command; None for that before it.
        data: The result, for scripts.
        text: Prints it for people.
    """
    if output_format(ctx, chosen) is Format.JSON:
        typer.echo(json.dumps({"version": FORMAT_VERSION, "data": data}, ensure_ascii=False))
    else:
        text()


def output_format(ctx: typer.Context, chosen: Format | None) -> Format:
    """Return the format asked for, after the command or before it."""
    return chosen or (ctx.find_object(Globals) or Globals()).format


def show_error(error: Exception, argv: Sequence[str]) -> int:
    """Print an error to standard error as the command line wants it; return the exit code."""
    exit_code, code, message = explain(error)
    if exit_code == INTERNAL_ERROR and wanted(argv, "--log-level") in ("debug", "trace"):
        traceback.print_exception(error)
    if wanted(argv, "--format") == Format.JSON:
        message = json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False)
        typer.echo(message, file=sys.stderr)
    else:
        typer.echo(f"Error: {message}", file=sys.stderr)
    return exit_code


def explain(error: Exception) -> tuple[int, str, str]:
    """Return exit code, stable name and message of an error.

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


def wanted(argv: Sequence[str], option: str) -> str | None:
    """Return an option's last value on a command line that may not even be valid.

    >>> wanted(["ps", "--format", "json"], "--format"), wanted(["--format=text", "ps"], "--format")
    ('json', 'text')
    >>> wanted(["ps", "--format"], "--format") is None, wanted([], "--format") is None
    (True, True)
    """
    value = None
    for word, following in itertools.zip_longest(argv, argv[1:]):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.removeprefix(f"{option}=")
    return value
