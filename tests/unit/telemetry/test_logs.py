import errno
import io
import json
import logging
import stat
import warnings
from pathlib import Path

import pytest
from loguru import logger

from ai_proxy.core.options import LogFormat, LogLevel
from ai_proxy.telemetry import logs

pytestmark = pytest.mark.usefixtures("logging_as_it_was")


@pytest.fixture
def console() -> io.StringIO:
    return io.StringIO()


def fail_with(secret: str) -> None:
    raise ValueError(f"not {len(secret)} characters")


def test_text_tells_when_where_what_and_what_is_bound(console: io.StringIO) -> None:
    logs.configure(console=console)

    logger.bind(service="llama3", request_id="r1").info("starting {}", "<b>it</b>")

    line = console.getvalue()
    assert " INFO " in line
    assert f"{__name__}:test_text_tells_when_where_what_and_what_is_bound:" in line
    assert line.endswith("starting <b>it</b> service=llama3 request_id=r1\n")


@pytest.mark.threat("a backend", "control of an operator's terminal")
def test_backend_output_cannot_control_the_terminal(console: io.StringIO) -> None:
    logs.configure(console=console)

    logger.bind(service="\x1b[2J").info("it said {}", "\x1b]0;a title\x07\x9b2J")

    assert console.getvalue().endswith("it said \\x1b]0;a title\\x07\\x9b2J service=\\x1b[2J\n")


@pytest.mark.threat("a backend", "control of an operator's terminal")
def test_backend_output_in_a_traceback_cannot_control_the_terminal(console: io.StringIO) -> None:
    logs.configure(console=console)

    try:
        raise ValueError("bad answer: \x1b]0;a title\x07<red>{braces}")  # noqa: TRY301
    except ValueError:
        logger.exception("failed")

    assert "Traceback (most recent call last):" in console.getvalue()
    assert "ValueError: bad answer: \\x1b]0;a title\\x07<red>{braces}\n" in console.getvalue()
    assert "\x1b" not in console.getvalue()


def test_json_is_one_object_per_line(console: io.StringIO) -> None:
    logs.configure(log_format=LogFormat.JSON, console=console)

    logger.bind(service="llama3").warning("with {braces} and <tags>\nand lines")
    logger.info("second")

    first, second = map(json.loads, console.getvalue().splitlines())
    assert first["message"] == "with {braces} and <tags>\nand lines"
    assert (first["level"], first["service"]) == ("warning", "llama3")
    assert {"time", "module", "function", "line"} <= set(first)
    assert second["message"] == "second"
    assert "service" not in second


def test_a_record_of_a_library_that_cannot_be_formatted_harms_nobody(
    console: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(console=console)

    logging.getLogger("library").warning("%d requests", "many")
    logging.getLogger("library").warning("next")

    assert "next" in console.getvalue()
    assert "%d requests" in capsys.readouterr().err


class FullDisk(io.StringIO):
    """A console whose device is full."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_console_that_cannot_be_written_harms_nobody(
    log_format: LogFormat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "proxy.log"
    logs.configure(log_format=log_format, log_file=file, console=FullDisk())

    logger.info("a line")

    assert "a line" in file.read_text()
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("log_format", LogFormat)
def test_tracebacks_never_show_local_variables(console: io.StringIO, log_format: LogFormat) -> None:
    logs.configure(log_format=log_format, console=console)

    secret = "hunter2"
    try:
        fail_with(secret)
    except ValueError:
        logger.exception("failed")

    assert "not 7 characters" in console.getvalue()
    assert "hunter2" not in console.getvalue()


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        (LogLevel.INFO, ["info", "error"]),
        (LogLevel.ERROR, ["error"]),
        (LogLevel.DEBUG, ["debug", "info", "error"]),
    ],
)
def test_level_is_the_least_that_is_shown(console: io.StringIO, level: LogLevel, seen: list[str]) -> None:
    logs.configure(level=level, log_format=LogFormat.JSON, console=console)

    logger.debug("a")
    logger.info("b")
    logger.error("c")

    assert [json.loads(line)["level"] for line in console.getvalue().splitlines()] == seen


@pytest.mark.parametrize("name", ["uvicorn.error", "aiohttp.client", "asyncio", "anything.else"])
def test_standard_library_logging_is_shown_from_warning_up(console: io.StringIO, name: str) -> None:
    logs.configure(log_format=LogFormat.JSON, console=console)

    logging.getLogger(name).info("noise")
    logging.getLogger(name).warning("careful with {%s}", "this")

    (line,) = map(json.loads, console.getvalue().splitlines())
    assert (line["level"], line["module"], line["message"]) == ("warning", name, "careful with {this}")
    assert line["function"] == "test_standard_library_logging_is_shown_from_warning_up"


def test_when_debugging_libraries_are_heard_from_info_up(console: io.StringIO) -> None:
    logs.configure(level=LogLevel.DEBUG, console=console)

    logging.getLogger("uvicorn.error").info("started")

    assert "started" in console.getvalue()


def test_warnings_go_to_the_log(console: io.StringIO) -> None:
    logs.configure(console=console)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure(console=console)
        warnings.warn("old ways", stacklevel=1)

    assert "old ways" in console.getvalue()


@pytest.mark.threat("a local user", "keys, pepper, logs or sockets in the data and run directories")
def test_file_gets_what_the_console_gets_and_is_private(console: io.StringIO, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "proxy.log"
    logs.configure(log_file=path, console=console)

    logger.info("hello")

    assert path.read_text() == console.getvalue()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
