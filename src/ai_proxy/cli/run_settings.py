"""`config set`, `get`, `list` and `unset`: settings that change at run time."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.output import ConfigOption, FormatOption, say, show

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
    value: Annotated[str, typer.Argument(help="New value: 5m, 1500, off, debug.")],
    *,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Set a run-time setting in the store; a running proxy applies it within a second.

    It overrides the configuration file, which is not modified.
    """
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.control.run_settings import written

    async def put(state: "ProxyState") -> "Setting":
        async with audited(state, f"settings.put {name}") as event:
            setting = await state.settings.put(name, value)
            event.detail = written(setting)
        return setting

    setting = with_state(config, put)
    show(ctx, output, asdict(setting), lambda: say(f"{name} is {written(setting)}"))


def unset_setting(
    ctx: typer.Context, name: NameArgument, *, config: ConfigOption = None, output: FormatOption = None
) -> None:
    """Remove a run-time setting, so that the configuration file applies again."""
    from ai_proxy.cli.state import audited, with_state
    from ai_proxy.control.run_settings import written

    async def drop(state: "ProxyState") -> "Setting":
        async with audited(state, f"settings.drop {name}"):
            return await state.settings.drop(name)

    setting = with_state(config, drop)
    show(ctx, output, asdict(setting), lambda: say(f"{name} is {written(setting)} again"))


def get_setting(
    ctx: typer.Context, name: NameArgument, *, config: ConfigOption = None, output: FormatOption = None
) -> None:
    """Print the current value of a setting."""
    from ai_proxy.cli.state import with_state
    from ai_proxy.control.run_settings import written

    async def get(state: "ProxyState") -> "Setting":
        return state.settings.get(name)

    setting = with_state(config, get)
    show(ctx, output, asdict(setting), lambda: say(written(setting)))


def list_settings(ctx: typer.Context, *, config: ConfigOption = None, output: FormatOption = None) -> None:
    """List the run-time settings and their current values."""
    from ai_proxy.cli.state import with_state
    from ai_proxy.cli.tables import print_settings

    async def read(state: "ProxyState") -> "list[Setting]":
        return state.settings.all()

    settings = with_state(config, read)
    show(ctx, output, [asdict(one) for one in settings], lambda: print_settings(settings))
