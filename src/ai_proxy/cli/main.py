"""The entry point of the command line.

Commands import heavy modules themselves, so that `--help` is fast.
"""

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ai_proxy.cli import (
    api_keys,
    audit,
    backup,
    chat,
    check,
    config,
    engines,
    install,
    proxy,
    run_settings,
    security,
    serve,
    services,
    tls,
)
from ai_proxy.cli.output import INTERRUPTED, OK, Format, Globals, say, show_error
from ai_proxy.core.options import LogLevel

app = typer.Typer(
    name="ai-proxy",
    help="One HTTP endpoint in front of every inference backend: started on demand, stopped when idle.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would double the time of --help
    pretty_exceptions_enable=False,
)
run_settings.add_to(config.app)
app.add_typer(config.app, name="config")
app.add_typer(engines.app, name="engines")
app.add_typer(tls.app, name="tls")
app.add_typer(proxy.app, name="proxy")
app.add_typer(install.app, name="service")
app.add_typer(backup.app, name="backup")
app.add_typer(api_keys.app, name="api-keys")
app.add_typer(security.app, name="security")
app.command()(serve.serve)
services.add_to(app)
chat.add_to(app)
check.add_to(app)
audit.add_to(app)

GC_THRESHOLD = 100_000
"""Objects created between two garbage collections: imports create many objects and no garbage."""

LogLevelOption = Annotated[
    LogLevel,
    typer.Option("--log-level", envvar="AI_PROXY_LOG_LEVEL", help="Minimum severity of log records."),
]


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        from importlib.metadata import version

        say(f"ai-proxy {version('ai-inference-proxy')}")
        raise typer.Exit


@app.callback()
def set_globals(
    ctx: typer.Context,
    *,
    output: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TEXT,
    log_level: LogLevelOption = LogLevel.INFO,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Store the options before the command."""
    ctx.obj = Globals(output, log_level)


@app.command()
def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="Exit after one chat.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="GGUF file to use instead of the tiny model.", exists=True, dir_okay=False),
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="TCP port. Default: a free one.")] = None,
) -> None:
    """Chat with a tiny model that the proxy starts.

    Needs no configuration, GPU or download.
    """
    import asyncio

    from ai_proxy.cli.demo import run_demo

    raise typer.Exit(asyncio.run(run_demo(model=model, port=port, once=once)))


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed, not raised."""
    try:
        code = app(list(argv) or ["--help"], prog_name="ai-proxy", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the top level prints every error
        return show_error(error, argv)
    return code if isinstance(code, int) else OK


def main() -> None:
    """Run this process's command line."""
    gc.set_threshold(GC_THRESHOLD)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
