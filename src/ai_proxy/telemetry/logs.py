"""Log records: who writes them, what they look like and where they go.

Local variables are never printed in tracebacks: they hold keys and prompts.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from ai_proxy.core.options import LogFormat, LogLevel
from ai_proxy.platform.data_folder import private_opener

if TYPE_CHECKING:
    from loguru import FormatFunction, Record

ROTATION = "50 MB"
"""Size at which a log file is put aside."""

RETENTION = 5
"""Old log files kept."""

_HEAD = (
    "<green>{time:YYYY-MM-DD HH:mm:ss.SSS}</green> <level>{level: <7}</level> "
    "<cyan>{name}:{function}:{line}</cyan> <level>{message}</level>"
)


def configure(
    level: LogLevel = LogLevel.INFO,
    log_format: LogFormat = LogFormat.TEXT,
    log_file: Path | None = None,
    console: TextIO | None = None,
) -> Callable[[LogLevel], None]:
    """Send all records, those of the standard library's logging too, to where the user wants them.

    Returns a function that has records of another level written from then on.

    Args:
        level: The least severe records written.
        log_format: For people or for machines.
        log_file: Written besides the console, and rotated; nobody but its owner may read it. Written alone
            when it is where standard error goes.
        console: Standard error when None.
    """
    if console is None and not _is_stderr(log_file):
        console = sys.stderr
    ours: list[int] = []

    def set_level(level: LogLevel) -> None:
        for sink in ours:
            logger.remove(sink)
        ours[:] = _add_sinks(level, log_format, log_file, console)
        _intercept_stdlib(level)

    logger.remove()
    set_level(level)
    return set_level


def _add_sinks(
    level: LogLevel, log_format: LogFormat, log_file: Path | None, console: TextIO | None
) -> Iterator[int]:
    as_json = log_format is LogFormat.JSON
    shape: FormatFunction = _json_shape if as_json else _text_shape
    if console is not None:
        yield logger.add(
            console,
            level=level.upper(),
            format=shape,
            colorize=False if as_json else None,
            backtrace=False,
            diagnose=False,
        )
    if log_file is not None:
        yield logger.add(
            log_file,
            level=level.upper(),
            format=shape,
            colorize=False,
            backtrace=False,
            diagnose=False,
            rotation=ROTATION,
            retention=RETENTION,
            encoding="utf-8",
            opener=private_opener,
        )


def _is_stderr(log_file: Path | None) -> bool:
    """Tell whether standard error goes to the log file already: each record is written there once."""
    if log_file is None:
        return False
    try:
        return os.path.samestat(log_file.stat(), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError):  # there is no such file yet, or standard error is none
        return False


def _text_shape(record: "Record") -> str:
    bound = "".join(f" <dim>{name}={{extra[{name}]}}</dim>" for name in record["extra"])
    return f"{_HEAD}{bound}\n{{exception}}"


def _json_shape(record: "Record") -> str:
    record["extra"]["json"] = to_json(record)
    return "{extra[json]}\n"


def to_json(record: "Record") -> str:
    """Render a record as one line of JSON."""
    line: dict[str, object] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name.lower(),
        "module": record["name"],
        "function": record["function"],
        "line": record["line"],
        "message": record["message"],
        **{name: value for name, value in record["extra"].items() if name != "json"},
    }
    if (error := record["exception"]) is not None:
        line["exception"] = "".join(traceback.format_exception(error.type, error.value, error.traceback))
    return json.dumps(line, ensure_ascii=False, default=str)


class _Intercept(logging.Handler):
    """Hands records of the standard library's logging to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        known = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
        level = record.levelname if record.levelname in known else record.levelno
        try:
            logger.patch(lambda ours: _locate(ours, record)).opt(exception=record.exc_info).log(
                level, "{}", record.getMessage()
            )
        except Exception:  # noqa: BLE001 - a library's faulty message must not raise into the code that logs it
            self.handleError(record)


def _locate(ours: "Record", theirs: logging.LogRecord) -> None:
    """Say where the record was made; loguru would name this module."""
    ours["name"], ours["function"], ours["line"] = theirs.name, theirs.funcName, theirs.lineno


def _intercept_stdlib(level: LogLevel) -> None:
    """Libraries are heard from WARNING up; when debugging, from INFO up."""
    heard = logging.INFO if level in (LogLevel.TRACE, LogLevel.DEBUG) else logging.WARNING
    logging.basicConfig(handlers=[_Intercept()], level=heard, force=True)
    logging.captureWarnings(capture=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "aiohttp", "asyncio"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)
