"""What service managers need to know of the proxy: a unit of systemd, a property list of launchd."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LABEL = "ai-proxy"
"""What launchd calls it."""
LOWEST_FREE_PORT = 1024
"""Ports below it are for those with CAP_NET_BIND_SERVICE (capabilities(7))."""
START_WITHIN = 300
"""Seconds; the first public certificate may take a while."""

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
# Secrets that the configuration reads from the environment: NAME=value, one on each line.
EnvironmentFile=-/etc/ai-proxy.env
StateDirectory=ai-proxy
StateDirectoryMode=0700
RuntimeDirectory=ai-proxy
RuntimeDirectoryMode=0700
# The proxy finds there what it left running.
RuntimeDirectoryPreserve=yes
Restart=on-failure
RestartSec=5
TimeoutStartSec={start}
# Requests in flight finish, then backends end; what is left after that is killed.
KillMode=mixed
TimeoutStopSec={stop}
# A backend that runs out of memory does not take the proxy along.
OOMPolicy=continue
LimitNOFILE=65536
LimitMEMLOCK=infinity
# Backends are ordinary programs: they want GPUs, Docker's socket, caches in home folders, and setuid helpers
# such as nvidia-modprobe. What would take that from them, NoNewPrivileges= among it, is left out.
ProtectSystem=full
ProtectControlGroups=yes
{capabilities}
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the proxy is to be run.

    Attributes:
        command: Program and arguments.
        user: Who runs it.
        search_path: Where programs are looked for, as in `PATH`.
        stop_within: Seconds it may take to end.
        low_ports: Whether it listens on a port below 1024.
        log: Where launchd has it write; None for systemd, whose journal takes everything.
    """

    command: Sequence[str]
    user: str
    search_path: str
    stop_within: float
    low_ports: bool
    log: Path | None


def systemd_unit(plan: Plan) -> str:
    """Return a unit for the system's own systemd: systemd.unit(5), systemd.service(5), systemd.exec(5)."""
    return _UNIT.format(
        command=" ".join(map(systemd_word, plan.command)),
        user=plan.user,
        path=systemd_word(f"PATH={plan.search_path}"),
        start=START_WITHIN,
        stop=math.ceil(plan.stop_within),
        capabilities="AmbientCapabilities=CAP_NET_BIND_SERVICE\n" if plan.low_ports else "",
    )


def systemd_word(word: str) -> str:
    r"""Quote a word for a unit: systemd.syntax(7), and specifiers and variables besides.

    >>> print(systemd_word("/opt/my models/100%.yaml"), systemd_word("$x"), systemd_word("plain"))
    "/opt/my models/100%%.yaml" "$$x" plain
    """
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = word.isascii() and all(char.isalnum() or char in "/._-=:+@," for char in word)
    return escaped if plain and word else f'"{escaped}"'


def launchd_plist(plan: Plan) -> str:
    """Return a property list for an agent of the user's: launchd.plist(5)."""
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
