"""`ai-proxy config`: check, show and start a configuration file."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.output import USER_ERROR, Format, FormatOption, UserError, output_format, show

if TYPE_CHECKING:
    from ai_proxy.config.load import Loaded
    from ai_proxy.config.problems import ConfigError

app = typer.Typer(help="Check, show and start the configuration file.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The file. Default: $AI_PROXY_CONFIG, else ./config.yaml, else the one in the user's folder.",
        show_default=False,
    ),
]


@app.command()
def check(ctx: typer.Context, config: ConfigOption = None, output: FormatOption = None) -> None:
    """Report every error of the configuration file, each with its line and what to do.

    Programs and models that services name and that are not here are warned of: they may yet come.
    """
    path, loaded = _load(config, output_format(ctx, output))
    services, missing = list(loaded.config.services), _missing(loaded)
    data = {"file": str(path) if path else None, "services": services, "warnings": missing}

    def tell() -> None:
        for text in missing:
            typer.echo(f"warning: {text}", err=True)
        typer.echo(_verdict(path, len(services)))

    show(ctx, output, data, tell)


def _missing(loaded: "Loaded") -> list[str]:
    from ai_proxy.config.build import build_services
    from ai_proxy.doctor.backends import find_missing

    services, host = build_services(loaded.config), loaded.config.server.docker.host
    return [f"{one.text}; {one.fix}" for one in find_missing(services, os.environ, host)]


@app.command("show")
def show_effective(ctx: typer.Context, config: ConfigOption = None, output: FormatOption = None) -> None:
    """Print what holds once types and defaults are filled in, without secrets."""
    from ai_proxy.config import show as effective

    _, loaded = _load(config, output_format(ctx, output))
    data = effective.show(loaded)
    show(ctx, output, data, lambda: typer.echo(effective.to_yaml(data), nl=False))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from ai_proxy.config.jsonschema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def types(ctx: typer.Context, config: ConfigOption = None, output: FormatOption = None) -> None:
    """List the service types, those of the configuration file among them."""
    from dataclasses import asdict

    from ai_proxy.config.types import resolve_types

    _, loaded = _load(config, output_format(ctx, output))
    templates = list(resolve_types(loaded.config.types).values())
    width = max(len(template.name) for template in templates)
    lines = [f"{template.name:{width}}  {template.description}" for template in templates]
    show(ctx, output, [asdict(template) for template in templates], lambda: typer.echo("\n".join(lines)))


@app.command()
def init(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("config.yaml"),
    output: FormatOption = None,
) -> None:
    """Write a commented configuration file to start from; an existing file is left alone."""
    from ai_proxy.config.reference import starter

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter())
    except FileExistsError:
        raise UserError(
            f"{path} exists already; name another file, or remove it first", "file_exists"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}", "not_writable") from None
    chosen = "" if path == Path("config.yaml") else f" --config {path}"
    next_steps = (
        f"wrote {path}; edit it, then run 'ai-proxy config check{chosen}' and 'ai-proxy serve{chosen}'"
    )
    show(ctx, output, {"file": str(path)}, lambda: typer.echo(next_steps))


def _load(explicit: Path | None, wanted: Format) -> "tuple[Path | None, Loaded]":
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
        typer.echo(error.detail if wanted is Format.TEXT else _as_json(error), err=True)
        raise typer.Exit(USER_ERROR) from None


def _as_json(error: "ConfigError") -> str:
    """Write the errors of a file for scripts, each with its parts."""
    from dataclasses import asdict

    problems = [asdict(problem) for problem in error.problems]
    return json.dumps({"error": {"code": error.code, "message": error.detail, "problems": problems}})


def _verdict(path: Path | None, count: int) -> str:
    """Say that a file is in order.

    >>> _verdict(Path("config.yaml"), 3)
    'config.yaml: ok, 3 services'
    """
    if path is None:
        return "no configuration file, which is fine; 'ai-proxy config init' writes one"
    return f"{path}: ok, {count} service{'' if count == 1 else 's'}"
