"""`ai-proxy service`: have the operating system run the proxy, from its start on."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_proxy.cli.output import FormatOption, UserError, show
from ai_proxy.cli.serve import ConfigOption

if TYPE_CHECKING:
    from ai_proxy.cli.units import Plan

app = typer.Typer(help="Have systemd or launchd run the proxy.", no_args_is_help=True)

LAUNCHD_STEPS = """\
This program installs nothing by itself. To have launchd run the proxy while you are logged in:
  ai-proxy service install --print > ~/Library/LaunchAgents/{label}.plist
  launchctl bootstrap gui/$UID ~/Library/LaunchAgents/{label}.plist"""

SYSTEMD_STEPS = """\
This program installs nothing by itself. To have systemd run the proxy:
  ai-proxy service install --print | sudo tee /etc/systemd/system/ai-proxy.service
  sudo systemctl daemon-reload
  sudo systemctl enable --now ai-proxy"""


@app.callback()
def group() -> None:
    """Keep the command of the group below its name."""


@app.command()
def install(
    ctx: typer.Context,
    *,
    print_it: Annotated[bool, typer.Option("--print", help="Print the file that describes it.")] = False,
    systemd: Annotated[bool, typer.Option("--systemd", help="For systemd, as on most of Linux.")] = False,
    launchd: Annotated[bool, typer.Option("--launchd", help="For launchd, as on macOS.")] = False,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Print what systemd or launchd needs to run the proxy, or say what to do with it."""
    from ai_proxy.cli.units import LABEL, launchd_plist, systemd_unit

    if systemd and launchd:
        raise UserError("--systemd and --launchd contradict each other; give one of them", "usage")
    for_launchd = launchd or (sys.platform == "darwin" and not systemd)
    if not print_it:
        text = LAUNCHD_STEPS.format(label=LABEL) if for_launchd else SYSTEMD_STEPS
    elif for_launchd:
        text = launchd_plist(_plan(config, Path.home() / "Library/Logs/ai-proxy.log"))
    else:
        text = systemd_unit(_plan(config, None))
    show(ctx, output, text, lambda: typer.echo(text.rstrip()))


def _plan(chosen: Path | None, log: Path | None) -> "Plan":
    import getpass

    from ai_proxy.cli.units import LOWEST_FREE_PORT, Plan
    from ai_proxy.config.build import build_services, server_settings, tls_settings
    from ai_proxy.config.load import find_config, load_config
    from ai_proxy.config.schema import Config
    from ai_proxy.core.options import ServeOptions
    from ai_proxy.core.settings import TlsMode
    from ai_proxy.instances.background import drain_time, serve_command

    path = find_config(chosen, os.environ, Path.cwd())
    config = load_config(path, os.environ) if path else Config()
    settings, tls = server_settings(config), tls_settings(config)
    ports = [settings.port, LOWEST_FREE_PORT if tls.redirect_port is None else tls.redirect_port]
    return Plan(
        command=serve_command(ServeOptions(config=path.absolute() if path else None, log_file=log)),
        user=getpass.getuser(),
        search_path=os.environ.get("PATH", os.defpath),
        stop_within=drain_time(settings.limits, build_services(config)),
        low_ports=tls.mode is TlsMode.HTTPS_ACME or any(0 < port < LOWEST_FREE_PORT for port in ports),
        log=log,
    )
