"""Commands about services: `ps`, `start`, `stop`, `restart`, `unload`, `logs`, `models list`."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ai_proxy.cli.output import Format, FormatOption, PortOption, RunDirOption, output_format, say, show

ServiceArgument = Annotated[
    str, typer.Argument(metavar="SERVICE", help="The service's id, as in the configuration.")
]
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait until it is done, or return at once.")
]
TimeoutOption = Annotated[float, typer.Option(min=0.1, max=3600, help="Longest wait, in seconds.")]


models = typer.Typer(help="Show the models that clients can use.", no_args_is_help=True)


@models.callback()
def group() -> None:
    """Show the models that clients can use."""


def add_to(app: typer.Typer) -> None:
    """Add the commands to a program."""
    app.command()(ps)
    for action, (longest, text) in ACTIONS.items():
        app.command(action, help=text)(_action_command(action, longest))
    app.command()(logs)
    app.add_typer(models, name="models")


def ps(
    ctx: typer.Context, output: FormatOption = None, port: PortOption = None, run_dir: RunDirOption = None
) -> None:
    """List the services and their states."""
    from ai_proxy.cli.client import Server, ask
    from ai_proxy.cli.tables import print_services

    async def get(server: Server) -> dict[str, Any]:
        return await server.get("/api/v1/services")

    services = ask(run_dir, port, get)["services"]
    show(ctx, output, services, lambda: print_services(services))


ACTIONS = {
    "start": (600, "Start a service and wait until it is ready."),
    "stop": (60, "Stop a service until you start it again."),
    "restart": (600, "Stop a service and start it again."),
    "unload": (60, "Free a service's memory; requests may start it again."),
}
"""Longest wait in seconds and help of the commands that act on a service."""


def _action_command(action: str, longest: float) -> Callable[..., None]:
    def command(
        ctx: typer.Context,
        service: ServiceArgument,
        *,
        wait: WaitOption = True,
        timeout: TimeoutOption = longest,
        output: FormatOption = None,
        port: PortOption = None,
        run_dir: RunDirOption = None,
    ) -> None:
        from ai_proxy.cli.client import Server, ask
        from ai_proxy.cli.progress import act

        async def perform(server: Server) -> dict[str, Any]:
            return await act(server, action, service, timeout if wait else 0)

        result = ask(run_dir, port, perform)
        show(ctx, output, result, lambda: say(result["message"]))

    return command


def logs(
    ctx: typer.Context,
    service: ServiceArgument,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", min=0, help="Number of last lines to print first.")
    ] = 100,
    output: FormatOption = None,
    port: PortOption = None,
    run_dir: RunDirOption = None,
) -> None:
    """Print a service's output."""
    from ai_proxy.cli.client import Server, ask, service_path

    path = service_path(service, "logs")

    async def get(server: Server) -> dict[str, Any]:
        return await server.get(path, tail=tail)

    async def print_new(server: Server) -> None:
        as_json = output_format(ctx, output) is Format.JSON
        async for data in server.follow(path, tail=tail, follow=1):
            say(data.decode() if as_json else text_of(data))

    if follow:
        ask(run_dir, port, print_new)
    else:
        answer = ask(run_dir, port, get)
        show(
            ctx,
            output,
            answer["lines"],
            lambda: say("".join(f"{line['text']}\n" for line in answer["lines"]), nl=False),
        )


def text_of(data: bytes) -> str:
    """Return the text of a log line as the server streams it.

    >>> text_of(b'{"seq": 1, "at": 0.0, "text": "listening"}')
    'listening'
    """
    import json

    return str(json.loads(data)["text"])


@models.command("list")
def list_models(
    ctx: typer.Context, output: FormatOption = None, port: PortOption = None, run_dir: RunDirOption = None
) -> None:
    """List the models of all services and their states."""
    from ai_proxy.cli.client import Server, ask
    from ai_proxy.cli.tables import print_models

    async def get(server: Server) -> dict[str, Any]:
        return await server.get("/api/v1/models")

    found = ask(run_dir, port, get)["models"]
    show(ctx, output, found, lambda: print_models(found))
