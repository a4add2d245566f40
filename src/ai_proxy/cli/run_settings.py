"""`config set`, `get`, `list` and `unset`: settings that are changed while the proxy runs."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.config import ConfigOption
from ai_proxy.cli.output import FormatOption, show

if TYPE_CHECKING:
    from ai_proxy.control.run_settings import Setting
    from ai_proxy.instances.state import ProxyState

NameArgument = Annotated[str, typer.Argument(help="The setting, such as engine.cache_ttl.")]


def add_to(group: typer.Typer) -> None:
    """Add the commands to a group."""
    commands: dict[str, Callable[..., None]] = {
        "set": set_setting,
        "get": get_setting,
        "list": list_settings,
        "unset": unset_setting,
    }
    for name, command in commands.items():
        group.command(name)(command)


def set_setting(
    ctx: typer.Context,
    name: NameArgument,
    value: Annotated[str, typer.Argument(help="What it is to be: 5m, 1500, off, debug.")],
    *,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Have a setting hold from now on; a proxy that runs follows within a second. It is kept in the store.

    It comes before what the configuration file says, which is left alone.
    """
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.control.run_settings import written

    async def put(state: "ProxyState") -> "Setting":
        async with audited(state, f"settings.put {name}") as deed:
            setting = await state.settings.put(name, value)
            deed.detail = written(setting)
        return setting

    setting = with_state(config, put)
    show(ctx, output, asdict(setting), lambda: typer.echo(f"{name} is {written(setting)}"))


def unset_setting(
    ctx: typer.Context, name: NameArgument, *, config: ConfigOption = None, output: FormatOption = None
) -> None:
    """Have hold again what the configuration file says."""
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.control.run_settings import written

    async def drop(state: "ProxyState") -> "Setting":
        async with audited(state, f"settings.drop {name}"):
            return await state.settings.drop(name)

    setting = with_state(config, drop)
    show(ctx, output, asdict(setting), lambda: typer.echo(f"{name} is {written(setting)} again"))


def get_setting(
    ctx: typer.Context, name: NameArgument, *, config: ConfigOption = None, output: FormatOption = None
) -> None:
    """Print the value of a setting that holds."""
    from ai_proxy.cli.state import with_state
    from ai_proxy.control.run_settings import written

    async def get(state: "ProxyState") -> "Setting":
        return state.settings.get(name)

    setting = with_state(config, get)
    show(ctx, output, asdict(setting), lambda: typer.echo(written(setting)))


def list_settings(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """List what can be changed while the proxy runs, and what holds."""
    from ai_proxy.cli.state import with_state
    from ai_proxy.cli.tables import print_settings

    async def read(state: "ProxyState") -> "list[Setting]":
        return state.settings.all()

    settings = with_state(config, read)
    show(ctx, output, [asdict(one) for one in settings], lambda: print_settings(settings))
