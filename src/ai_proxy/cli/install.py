"""`ai-proxy service`: units for systemd and property lists for launchd."""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ai_proxy.cli.output import ConfigOption, FormatOption, UserError, say, show

app = typer.Typer(help="Run the proxy under systemd or launchd.", no_args_is_help=True)

LABEL = "ai-proxy"
"""Name of the launchd agent."""
LOWEST_FREE_PORT = 1024
"""Ports below it need CAP_NET_BIND_SERVICE (capabilities(7))."""
START_WITHIN = 300
"""Seconds for a start; obtaining the first public certificate may take long."""

_UNIT = """\
[Unit]
Description=ai-proxy: one HTTP endpoint in front of every inference backend
Wants=network-online.target
After=network-online.target docker.service nvidia-persistenced.service

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
User={user}
Environment={path}
Environment=AI_PROXY_DATA_DIR=%S/ai-proxy AI_PROXY_RUN_DIR=%t/ai-proxy
# Secrets that the configuration reads from the environment: NAME=value, one per line.
EnvironmentFile=-/etc/ai-proxy.env
StateDirectory=ai-proxy
StateDirectoryMode=0700
RuntimeDirectory=ai-proxy
RuntimeDirectoryMode=0700
# The proxy finds the services it left running there.
RuntimeDirectoryPreserve=yes
Restart=on-failure
RestartSec=5
TimeoutStartSec={start}
# The proxy ends its backends itself, once the requests in flight have finished. One that crashes or is killed
# leaves them running for the next one to adopt, so systemd must not end them.
KillMode=process
TimeoutStopSec={stop}
# A proxy whose event loop is stuck serves nobody: it is restarted, and finds its services running.
WatchdogSec=60
# A backend that runs out of memory must not end the proxy.
OOMPolicy=continue
LimitNOFILE=65536
LimitMEMLOCK=infinity
# Backends are ordinary programs: they need GPUs, Docker's socket, caches in home folders, and setuid helpers
# such as nvidia-modprobe. So options that would deny these, such as NoNewPrivileges=, are not set.
ProtectSystem=full
ProtectControlGroups=yes
{capabilities}
[Install]
WantedBy=multi-user.target
"""

LAUNCHD_STEPS = """\
ai-proxy installs nothing itself. To run it under launchd while you are logged in:
  ai-proxy service install --print > ~/Library/LaunchAgents/{label}.plist
  launchctl bootstrap gui/$UID ~/Library/LaunchAgents/{label}.plist"""

SYSTEMD_STEPS = """\
ai-proxy installs nothing itself. To run it under systemd:
  ai-proxy service install --print | sudo tee /etc/systemd/system/ai-proxy.service
  sudo systemctl daemon-reload
  sudo systemctl enable --now ai-proxy"""


@app.callback()
def group() -> None:
    """Keep `install` a command of the group although it is the only one."""


@app.command()
def install(
    ctx: typer.Context,
    *,
    print_it: Annotated[bool, typer.Option("--print", help="Print the unit or property list.")] = False,
    systemd: Annotated[bool, typer.Option("--systemd", help="For systemd, the default on Linux.")] = False,
    launchd: Annotated[bool, typer.Option("--launchd", help="For launchd, the default on macOS.")] = False,
    config: ConfigOption = None,
    output: FormatOption = None,
) -> None:
    """Print the steps to install the service, or with --print the unit or property list itself."""
    if systemd and launchd:
        raise UserError("--systemd and --launchd contradict each other; give one of them", "usage")
    for_launchd = launchd or (sys.platform == "darwin" and not systemd)
    if not print_it:
        text = LAUNCHD_STEPS.format(label=LABEL) if for_launchd else SYSTEMD_STEPS
    elif for_launchd:
        text = launchd_plist(_plan(config, Path.home() / "Library/Logs/ai-proxy.log"))
    else:
        text = systemd_unit(_plan(config, None))
    show(ctx, output, text, lambda: say(text.rstrip()))


@dataclass(frozen=True, slots=True)
class Plan:
    """How the service manager runs the proxy.

    Attributes:
        command: Program and arguments.
        user: User to run as.
        search_path: Value of `PATH`.
        stop_within: Seconds it may take to stop.
        low_ports: Whether it listens on a port below 1024.
        log: Log file, for launchd; None for systemd, which has its journal.
    """

    command: Sequence[str]
    user: str
    search_path: str
    stop_within: float
    low_ports: bool
    log: Path | None


def systemd_unit(plan: Plan) -> str:
    """Return a system unit: systemd.unit(5), systemd.service(5), systemd.exec(5)."""
    return _UNIT.format(
        command=" ".join(map(systemd_word, plan.command)),
        user=plan.user,
        path=systemd_word(f"PATH={plan.search_path}"),
        start=START_WITHIN,
        stop=math.ceil(plan.stop_within),
        capabilities="AmbientCapabilities=CAP_NET_BIND_SERVICE\n" if plan.low_ports else "",
    )


def systemd_word(word: str) -> str:
    r"""Quote a word for a unit (systemd.syntax(7)), and escape specifiers and variables.

    >>> print(systemd_word("/opt/my models/100%.yaml"), systemd_word("$x"), systemd_word("plain"))
    "/opt/my models/100%%.yaml" "$$x" plain
    """
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = word.isascii() and all(char.isalnum() or char in "/._-=:+@," for char in word)
    return escaped if plain and word else f'"{escaped}"'


def launchd_plist(plan: Plan) -> str:
    """Return the property list of a user agent: launchd.plist(5)."""
    import plistlib

    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": list(plan.command),
            "EnvironmentVariables": {"PATH": plan.search_path},
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 5,
            "ExitTimeOut": math.ceil(plan.stop_within),
            "ProcessType": "Interactive",
            "SoftResourceLimits": {"NumberOfFiles": 65536},
            **({"StandardOutPath": str(plan.log), "StandardErrorPath": str(plan.log)} if plan.log else {}),
        },
        sort_keys=False,
    ).decode()


def _plan(chosen: Path | None, log: Path | None) -> Plan:
    import getpass

    from ai_proxy.config.build import build_services, server_settings, tls_settings
    from ai_proxy.config.load import configuration
    from ai_proxy.core.options import ServeOptions
    from ai_proxy.core.settings import TlsMode
    from ai_proxy.instances.background import drain_time, serve_command

    path, config = configuration(chosen, os.environ)
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
