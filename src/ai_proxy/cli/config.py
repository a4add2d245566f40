"""`ai-proxy config`: checks, shows and creates the configuration file."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.output import (
    USER_ERROR,
    ConfigOption,
    Format,
    FormatOption,
    PortOption,
    RunDirOption,
    UserError,
    output_format,
    say,
    show,
)

if TYPE_CHECKING:
    from ai_proxy.config.load import Loaded

app = typer.Typer(help="Check, show, create and reload the configuration.", no_args_is_help=True)


@app.command()
def check(ctx: typer.Context, config: ConfigOption = None, output: FormatOption = None) -> None:
    """Report every error of the configuration file with its line and a fix.

    A program or model that a service names and this machine lacks is a warning.
    """
    from ai_proxy.config.build import build_services
    from ai_proxy.doctor.backends import find_missing

    path, loaded = _load(config, output_format(ctx, output))
    services, host = list(loaded.config.services), loaded.config.server.docker.host
    found = find_missing(build_services(loaded.config), os.environ, host)
    missing = [f"{one.text}; {one.fix}" for one in found]
    data = {"file": str(path) if path else None, "services": services, "warnings": missing}

    def tell() -> None:
        for text in missing:
            say(f"warning: {text}", err=True)
        say(_valid(path, len(services)))

    show(ctx, output, data, tell)


@app.command("show")
def show_effective(ctx: typer.Context, config: ConfigOption = None, output: FormatOption = None) -> None:
    """Print the configuration with types and defaults filled in and secrets masked."""
    from ai_proxy.config import show as effective

    _, loaded = _load(config, output_format(ctx, output))
    data = effective.show(loaded)
    show(ctx, output, data, lambda: say(effective.to_yaml(data), nl=False))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from ai_proxy.config.jsonschema import json_schema

    say(json.dumps(json_schema(), indent=2))


@app.command()
def types(ctx: typer.Context, config: ConfigOption = None, output: FormatOption = None) -> None:
    """List the service types, including those of the configuration file."""
    from ai_proxy.config.types import resolve_types

    _, loaded = _load(config, output_format(ctx, output))
    templates = list(resolve_types(loaded.config.types).values())
    width = max(len(template.name) for template in templates)
    lines = [f"{template.name:{width}}  {template.description}" for template in templates]
    show(ctx, output, [asdict(template) for template in templates], lambda: say("\n".join(lines)))


@app.command()
def init(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("config.yaml"),
    output: FormatOption = None,
) -> None:
    """Write a commented starter configuration; never overwrites a file."""
    from ai_proxy.config.reference import starter

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter())
    except FileExistsError:
        raise UserError(
            f"{path} already exists; name another file, or remove it first", "file_exists"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}", "not_writable") from None
    chosen = "" if path == Path("config.yaml") else f" --config {path}"
    next_steps = (
        f"wrote {path}; edit it, then run 'ai-proxy config check{chosen}' and 'ai-proxy serve{chosen}'"
    )
    show(ctx, output, {"file": str(path)}, lambda: say(next_steps))


@app.command()
def reload(
    ctx: typer.Context, output: FormatOption = None, port: PortOption = None, run_dir: RunDirOption = None
) -> None:
    """Reload the configuration of the running ai-proxy; only changed services restart."""
    from ai_proxy.cli.client import Server, ask

    async def post(server: Server) -> dict[str, list[str]]:
        return await server.post("/api/v1/config/reload")

    report = ask(run_dir, port, post)
    show(ctx, output, report, lambda: say(summary(report)))


def summary(report: dict[str, list[str]]) -> str:
    """Return what a reload changed, as text.

    >>> print(summary({"added": ["coder"], "restarted": ["llama3"], "unchanged": ["x"]}))
    added: coder
    restarted: llama3
    >>> summary({"added": [], "unchanged": ["x"]})
    'nothing changed'
    """
    labels = {
        "added": "added",
        "removed": "removed",
        "restarted": "restarted",
        "updated": "updated without a restart",
        "needs_restart": "takes effect after a restart of ai-proxy",
    }
    lines = [f"{label}: {', '.join(report[key])}" for key, label in labels.items() if report.get(key)]
    return "\n".join(lines) or "nothing changed"


def _load(explicit: Path | None, wanted: Format) -> "tuple[Path | None, Loaded]":
    """Load the configuration, or print its errors and exit; without a file it is empty."""
    from ai_proxy.config.load import Loaded, find_config, load
    from ai_proxy.config.problems import ConfigError
    from ai_proxy.config.schema import Config

    path = find_config(explicit, os.environ, Path())
    if path is None:
        return None, Loaded(Config())
    try:
        return path, load(path, os.environ)
    except ConfigError as error:
        text = error.detail
        if wanted is Format.JSON:
            problems = [asdict(problem) for problem in error.problems]
            text = json.dumps({"error": {"code": error.code, "message": text, "problems": problems}})
        say(text, err=True)
        raise typer.Exit(USER_ERROR) from None


def _valid(path: Path | None, count: int) -> str:
    """Return the message for a file without errors.

    >>> _valid(Path("config.yaml"), 3)
    'config.yaml: ok, 3 services'
    """
    if path is None:
        return "there is no configuration file; 'ai-proxy config init' writes one"
    return f"{path}: ok, {count} service{'' if count == 1 else 's'}"
