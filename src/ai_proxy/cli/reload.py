"""`config reload`: have the running server read its configuration again."""

import typer

from ai_proxy.cli.output import FormatOption, PortOption, RunDirOption, show


def add_to(group: typer.Typer) -> None:
    """Add the command to a group."""
    group.command("reload")(reload)


def reload(
    ctx: typer.Context, output: FormatOption = None, port: PortOption = None, run_dir: RunDirOption = None
) -> None:
    """Have the running ai-proxy read its configuration again; only services that changed are restarted."""
    from ai_proxy.cli.client import Server, ask

    async def post(server: Server) -> dict[str, list[str]]:
        return await server.post("/api/v1/config/reload")

    report = ask(run_dir, port, post)
    show(ctx, output, report, lambda: typer.echo(summary(report)))


def summary(report: dict[str, list[str]]) -> str:
    """Say what a reload changed.

    >>> print(summary({"added": ["coder"], "restarted": ["llama3"], "unchanged": ["x"]}))
    added: coder
    restarted: llama3
    >>> summary({"added": [], "unchanged": ["x"]})
    'nothing changed'
    """
    told = {
        "added": "added",
        "removed": "removed",
        "restarted": "restarted",
        "updated": "updated without a restart",
        "needs_restart": "takes effect when ai-proxy is restarted",
    }
    lines = [f"{words}: {', '.join(report[key])}" for key, words in told.items() if report.get(key)]
    return "\n".join(lines) or "nothing changed"
