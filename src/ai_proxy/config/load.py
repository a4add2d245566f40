"""Loads and checks a configuration file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from ai_proxy.config.checks import check
from ai_proxy.config.document import Document, SyntaxFaultError, nulls, parse, quote
from ai_proxy.config.problems import ConfigError, Fault, KeyPath, Position, Problem, render_path
from ai_proxy.config.references import resolve
from ai_proxy.config.schema import Config
from ai_proxy.config.validate import validate

_PARTS = tuple(Config.model_fields)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and which of its values came from references.

    Attributes:
        config: The configuration.
        written: The text in the file of each value that holds a reference.
    """

    config: Config
    written: Mapping[KeyPath, str] = field(default_factory=dict)


def find_config(
    explicit: Path | None, environ: Mapping[str, str], cwd: Path, user_folder: Path | None = None
) -> Path | None:
    """Return the configuration file to use, or None: a configuration file is optional.

    The first of: the explicit one, the one in `AI_PROXY_CONFIG`, `config.yaml` in the current folder,
    `config.yaml` in the user's configuration folder. The first two may not exist; loading then reports it.

    Args:
        explicit: The value of `--config`.
        environ: The environment.
        cwd: The current folder.
        user_folder: The user's configuration folder; None for this system's default.
    """
    if explicit is not None:
        return explicit
    if named := environ.get("AI_PROXY_CONFIG"):
        return Path(named)
    folders = (cwd, user_folder or platformdirs.user_config_path("ai-proxy", appauthor=False))
    return next((path for folder in folders if (path := folder / "config.yaml").is_file()), None)


def configuration(explicit: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, Config]:
    """Find and load the configuration file; return its path, and the default configuration without a file.

    Args:
        explicit: The value of `--config`.
        environ: The environment.

    Raises:
        ConfigError: The file has errors; it carries all of them.
    """
    path = find_config(explicit, environ, Path.cwd())
    return path, load_config(path, environ) if path else Config()


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Load a configuration file.

    Args:
        path: The file.
        environ: Environment variables for `${env:NAME}`.

    Raises:
        ConfigError: The file has errors; it carries all of them.
    """
    return load(path, environ).config


def load(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Load a configuration file, and record which of its values came from references.

    Raises:
        ConfigError: The file has errors; it carries all of them.
    """
    try:
        document = parse(_read(path))
    except SyntaxFaultError as error:
        raise ConfigError([_problem(path, Document(), error.fault)]) from None
    if not isinstance(document.data, dict):
        fault = Fault((), "not a mapping", f"write the sections {', '.join(_PARTS)}, each with a ':'")
        raise ConfigError([_problem(path, document, fault)])
    folder = path.absolute().parent
    data = {key: value for key, value in document.data.items() if value is not None or key not in _PARTS}
    empty = list(nulls(data))
    resolution = resolve(data, environ, folder)
    unread = [*document.faults, *empty, *resolution.faults]
    lost = {fault.path for fault in unread if fault.position is None}  # the first of two equal keys is used
    config, misfits = validate(resolution.data, document, folder, lost)
    faults = [*unread, *misfits, *check(config, lost | {fault.path for fault in misfits})]
    if faults:
        raise ConfigError(_problem(path, document, fault) for fault in faults)
    return Loaded(config, resolution.written)


def _read(path: Path) -> str:
    """Read the text of a file.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise _unreadable(path, "no such file", "create it with 'ai-proxy config init'") from None
    except IsADirectoryError:
        raise _unreadable(path, "is a folder", "give the path of the file in it") from None
    except OSError as error:
        raise _unreadable(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = len(raw[raw.rfind(b"\n", 0, error.start) + 1 : error.start].decode()) + 1
        fault = Fault((), "not UTF-8 text", "save the file as UTF-8", position=Position(line, column))
        raise ConfigError([_problem(path, Document(), fault)]) from None


def _unreadable(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(str(path), 0, 0, "", message, hint)])


def _problem(path: Path, document: Document, fault: Fault) -> Problem:
    place = document.position(fault)
    message = fault.message
    if "{value}" in message:
        message = message.replace("{value}", quote(document.value_at(fault.path)))
    return Problem(str(path), place.line, place.column, render_path(fault.path), message, fault.hint)
