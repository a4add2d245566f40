"""Check of the ports that the proxy listens on."""

import asyncio
import errno
import socket
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import psutil

from ai_proxy.config.build import server_settings, tls_settings
from ai_proxy.config.schema import Config
from ai_proxy.core.settings import TlsMode
from ai_proxy.doctor.finding import Finding, ok, problem
from ai_proxy.doctor.installation import Installation
from ai_proxy.platform.run_folder import running_instances

SUBJECT = "port"
HTTP = 80


@dataclass(frozen=True, slots=True)
class Listener:
    """An address that the proxy listens on, and the result of binding it.

    Attributes:
        setting: Its key in the configuration.
        host: Address.
        port: TCP port.
        error: The system's error number; 0 when it is free.
        holder: Name and pid of the program that listens there; empty when unknown.
        ours: Whether that program is an ai-proxy of this user.
    """

    setting: str
    host: str
    port: int
    error: int = 0
    holder: str = ""
    ours: bool = False


def classify_listener(listener: Listener) -> Finding:
    """Return whether the proxy can listen on a port."""
    where = f"{listener.host}:{listener.port} ({listener.setting})"
    match listener.error:
        case 0:
            return ok(SUBJECT, f"{where} is free")
        case errno.EADDRINUSE if listener.ours:
            return ok(SUBJECT, f"{where} is in use by a running ai-proxy, {listener.holder}")
        case errno.EADDRINUSE:
            held = f" by {listener.holder}" if listener.holder else ""
            fix = f"stop that program, or change {listener.setting}"
            return problem(SUBJECT, f"{where} is in use{held}", fix)
        case errno.EACCES:
            fix = (
                "grant it (setcap cap_net_bind_service=+ep; AmbientCapabilities= for systemd), or use another"
            )
            return problem(SUBJECT, f"{where} needs a privilege: ports below 1024 are reserved", fix)
        case errno.EADDRNOTAVAIL:
            return problem(SUBJECT, f"{where} is not an address of this machine", "correct server.host")
        case number:
            return problem(SUBJECT, f"{where} cannot be bound, error {number}", f"change {listener.setting}")


def wanted(config: Config) -> Mapping[str, int]:
    """Return the fixed ports that the proxy listens on, by their keys in the configuration.

    >>> wanted(Config())
    {'server.port': 11000}
    """
    server, tls = server_settings(config), tls_settings(config)
    plain = HTTP if tls.mode is TlsMode.HTTPS_ACME and tls.redirect_port is None else tls.redirect_port
    ports = {"server.port": server.port, "server.ollama_port": server.ollama_port, "tls.redirect_port": plain}
    return {setting: port for setting, port in ports.items() if port}


async def check_ports(installation: Installation) -> Sequence[Finding]:
    """Try to bind each port."""
    return await asyncio.to_thread(_findings, installation)


def _findings(installation: Installation) -> Sequence[Finding]:
    host, ours = installation.config.server.host, own_pids(installation.run)
    ports = wanted(installation.config)
    return [classify_listener(_try(setting, host, port, ours)) for setting, port in ports.items()]


def _try(setting: str, host: str, port: int, ours: Set[int]) -> Listener:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        return Listener(setting, host, port, errno.EADDRNOTAVAIL)
    except OSError as error:
        pid, name = _holder(port)
        return Listener(setting, host, port, error.errno or errno.EIO, name, pid in ours)
    return Listener(setting, host, port)


def _holder(port: int) -> tuple[int, str]:
    """Return pid and name of the program that listens on a port; 0 and "" when this user cannot see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == port and connection.pid:
                return connection.pid, f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return 0, ""


def own_pids(run: Path) -> frozenset[int]:
    """Return the pids of this user's running proxies."""
    locks = (folder / "lock" for folder in running_instances(run))
    pids = (lock.read_text(encoding="ascii").strip() for lock in locks if lock.exists())
    return frozenset(int(pid) for pid in pids if pid.isdecimal())
