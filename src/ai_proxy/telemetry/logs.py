"""Logging: format, destinations, and records of the standard library.

Tracebacks never show local variables, which hold keys and prompts.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from loguru import logger

from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State
from ai_proxy.core.options import LogFormat, LogLevel
from ai_proxy.core.terminal import IN_JSON, visible
from ai_proxy.platform.private_files import private_opener
from ai_proxy.telemetry.console import Console

if TYPE_CHECKING:
    from loguru import FormatFunction, Record

ROTATION = "50 MB"
"""Size at which a log file is rotated."""

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
    console: TextIO | Console | None = None,
) -> Callable[[LogLevel], None]:
    """Set up logging, also for records of the standard library.

    Returns a function that changes the level.

    Args:
        level: Least severe level that is logged.
        log_format: Text for people, or JSON.
        log_file: Also receives every record; rotated, and readable by its owner only. Standard error receives
            none when it is redirected to this file.
        console: Receives every record; standard error when None.
    """
    if _is_stderr(log_file):
        console = None
    elif console is None:
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
    level: LogLevel, log_format: LogFormat, log_file: Path | None, console: TextIO | Console | None
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
    """Tell whether standard error is redirected to the log file, which gets each record once."""
    if log_file is None:
        return False
    try:
        return os.path.samestat(log_file.stat(), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError):  # the file does not exist yet, or standard error is no file
        return False


def _text_shape(record: "Record") -> str:
    record["message"] = visible(record["message"])
    record["extra"] = {name: visible(str(value)) for name, value in record["extra"].items()}
    # In a key of its own: loguru fills in `exception` as the error has it, whose message may be a backend's.
    cast("dict[str, object]", record)["traceback"] = visible(_traceback(record))
    bound = "".join(f" <dim>{name}={{extra[{name}]}}</dim>" for name in record["extra"])
    return f"{_HEAD}{bound}\n{{traceback}}"


def _traceback(record: "Record") -> str:
    """Return the traceback of a record's error; empty without one."""
    error = record["exception"]
    return (
        "" if error is None else "".join(traceback.format_exception(error.type, error.value, error.traceback))
    )


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
    if shown := _traceback(record):
        line["exception"] = shown
    return json.dumps(line, ensure_ascii=False, default=str).translate(IN_JSON)


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
    """Set the record's origin; loguru would name this module."""
    ours["name"], ours["function"], ours["line"] = theirs.name, theirs.funcName, theirs.lineno


def _intercept_stdlib(level: LogLevel) -> None:
    """Log libraries from WARNING up; from INFO up when debugging."""
    threshold = logging.INFO if level in (LogLevel.TRACE, LogLevel.DEBUG) else logging.WARNING
    logging.basicConfig(handlers=[_Intercept()], level=threshold, force=True)
    logging.captureWarnings(capture=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "aiohttp", "asyncio"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)


class EventLog:
    """Logs the events of services; a failure that repeats is logged once, until the service is ready."""

    def __init__(self) -> None:
        self._failures: dict[str, str] = {}

    def __call__(self, event: ServiceEvent) -> None:
        """Log an event."""
        bound = logger.bind(service=event.service_id)
        bound.log(self._level(event), "{} is {}: {}", event.service_id, event.state, event.reason)

    def _level(self, event: ServiceEvent) -> str:
        failure = self._failures.get(event.service_id)
        if event.state in (State.FAILING, State.FAILED):
            self._failures[event.service_id] = event.reason
            return "DEBUG" if failure == event.reason else "WARNING"
        if event.event is Event.ABSENT or (failure and event.state in (State.STARTING, State.LOADING)):
            return "DEBUG"
        self._failures.pop(event.service_id, None)
        return "INFO"
