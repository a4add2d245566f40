"""What the command line asks of a run of the server; it overrides the configuration file."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class LogFormat(StrEnum):
    """How log records are written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe records that are written."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve; None leaves a choice to the configuration or to its default.

    Attributes:
        config: The configuration file.
        host: Address to listen on.
        port: TCP port.
        log_level: The least severe log records that are written.
        log_format: How they are written.
        log_file: Where they are written besides standard error.
        run_dir: Base of the run directories.
        detect: Whether engines that run by themselves are looked for.
    """

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT
    log_file: Path | None = None
    run_dir: Path | None = None
    detect: bool | None = None
