"""`ai-proxy models`: which models can be asked for."""

from typing import Any

import typer

from ai_proxy.cli.output import FormatOption, PortOption, RunDirOption, show

app = typer.Typer(help="Show the models that can be asked for.", no_args_is_help=True)


@app.callback()
def models() -> None:
    """Show the models that can be asked for."""


@app.command("list")
def list_models(
    ctx: typer.Context, output: FormatOption = None, port: PortOption = None, run_dir: RunDirOption = None
) -> None:
    """List the models of all services, and how those stand."""
    from ai_proxy.cli.client import Server, ask
    from ai_proxy.cli.tables import print_models

    async def get(server: Server) -> dict[str, Any]:
        return await server.get("/api/v1/models")

    found = ask(run_dir, port, get)["models"]
    show(ctx, output, found, lambda: print_models(found))
