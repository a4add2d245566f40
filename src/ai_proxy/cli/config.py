"""`ai-proxy config`: check, show and start a configuration file."""

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from ai_proxy.config.load import Loaded
    from ai_proxy.config.problems import ConfigError

app = typer.Typer(help="Check, show and start the configuration file.", no_args_is_help=True)


class Format(StrEnum):
    """How results are written."""

    TEXT = "text"
    JSON = "json"


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The file. Default: $AI_PROXY_CONFIG, else ./config.yaml, else the one in the user's folder.",
        show_default=False,
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How results are written.")]


@app.command()
def check(config: ConfigOption = None, output: FormatOption = Format.TEXT) -> None:
    """Report every error of the configuration file, each with its line and what to do."""
    path, loaded = _load(config, output)
    count = len(loaded.config.services)
    if output is Format.JSON:
        _print_json({"file": str(path) if path else None, "services": sorted(loaded.config.services)})
    elif path is None:
        typer.echo("no configuration file, which is fine; 'ai-proxy config init' writes one")
    else:
        typer.echo(f"{path}: ok, {count} service{'' if count == 1 else 's'}")


@app.command()
def show(config: ConfigOption = None, output: FormatOption = Format.TEXT) -> None:
    """Print what holds once types and defaults are filled in, without secrets."""
    from ai_proxy.config.show import show as effective
    from ai_proxy.config.show import to_yaml

    _, loaded = _load(config, output)
    data = effective(loaded)
    if output is Format.JSON:
        _print_json(data)
    else:
        typer.echo(to_yaml(data), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from ai_proxy.config.jsonschema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def types(config: ConfigOption = None, output: FormatOption = Format.TEXT) -> None:
    """List the service types, those of the configuration file among them."""
    from dataclasses import asdict

    from ai_proxy.config.types import resolve_types

    _, loaded = _load(config, output)
    templates = list(resolve_types(loaded.config.types).values())
    if output is Format.JSON:
        _print_json([asdict(template) for template in templates])
        return
    width = max(len(template.name) for template in templates)
    for template in templates:
        typer.echo(f"{template.name:{width}}  {template.description}")


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("config.yaml"),
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a commented configuration file to start from; an existing file is left alone."""
    from ai_proxy.config.reference import starter

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter())
    except FileExistsError:
        _fail(output, "file_exists", f"{path} exists already; name another file, or remove it first")
    except OSError as error:
        _fail(output, "not_writable", f"{path} cannot be written: {error.strerror}")
    if output is Format.JSON:
        _print_json({"file": str(path)})
    else:
        typer.echo(f"wrote {path}; edit it, then run 'ai-proxy config check' and 'ai-proxy serve'")


def _load(explicit: Path | None, output: Format) -> "tuple[Path | None, Loaded]":
    """Load the configuration, or report its errors and exit; without a file it is empty."""
    from ai_proxy.config.load import Loaded, find_config, load
    from ai_proxy.config.problems import ConfigError
    from ai_proxy.config.schema import Config

    path = find_config(explicit, os.environ, Path())
    if path is None:
        return None, Loaded(Config())
    try:
        return path, load(path, os.environ)
    except ConfigError as error:
        _fail(output, error.code, error.detail, {"problems": _problems(error)})


def _problems(error: "ConfigError") -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(problem) for problem in error.problems]


def _print_json(data: object) -> None:
    typer.echo(json.dumps({"version": "1.0", "data": data}, indent=2))


def _fail(output: Format, code: str, message: str, more: Mapping[str, object] | None = None) -> NoReturn:
    """Report an error of the user's and exit with 1."""
    if output is Format.JSON:
        typer.echo(json.dumps({"error": {"code": code, "message": message, **(more or {})}}, indent=2))
    else:
        typer.echo(message, err=True)
    raise typer.Exit(1)
