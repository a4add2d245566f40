"""Which Docker engine is used, and how it is connected to: as configured, else as the environment says."""

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from aiodocker import Docker, DockerError

from ai_proxy.core.errors import RuntimeFailureError, RuntimeUnavailableError
from ai_proxy.core.settings import DockerSettings
from ai_proxy.runtimes.docker.errors import explain_certificates, explain_host
from ai_proxy.runtimes.docker.spec import LOOPBACK

TCP = re.compile(r"(tcp|http|https)://")


def client_folder(environ: Mapping[str, str]) -> Path:
    """Return where the `docker` command keeps its settings and logins."""
    return Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def fill_in(settings: DockerSettings, environ: Mapping[str, str]) -> DockerSettings:
    """Return the settings with what they leave open taken from the environment, as the `docker` command does.

    >>> fill_in(DockerSettings(), {"DOCKER_HOST": "tcp://box:2375", "DOCKER_CERT_PATH": "/certs"}).host
    'tcp://box:2375'
    >>> fill_in(DockerSettings(), {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}).certificates
    PosixPath('/certs')
    """
    certificates = settings.certificates
    if certificates is None and environ.get("DOCKER_TLS_VERIFY"):
        certificates = Path(environ.get("DOCKER_CERT_PATH") or client_folder(environ))
    return replace(
        settings, host=settings.host or environ.get("DOCKER_HOST") or None, certificates=certificates
    )


def machine_of(host: str | None) -> str | None:
    """Return the machine that the URL of an engine names; None for this one.

    >>> machine_of("tcp://10.0.0.5:2376"), machine_of("ssh://me@gpu-box"), machine_of("unix:///run/docker.sock")
    ('10.0.0.5', 'gpu-box', None)
    >>> machine_of("tcp://localhost:2375"), machine_of("tcp://127.0.0.1:2375")
    (None, None)
    """
    url = urlsplit(host or "")
    name = url.hostname if url.scheme in ("tcp", "http", "https", "ssh") else None
    return None if name is None or name == "localhost" or _is_loopback(name) else name


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


async def find_address(machine: str | None) -> str:
    """Return the IP address of a machine, which is all that Docker publishes on; None stands for this one.

    Raises:
        RuntimeFailureError: Nobody knows it.
    """
    if machine is None:
        return LOOPBACK
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(machine, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RuntimeFailureError(
            f"the address of {machine} is not known ({error.strerror}): set server.docker.address"
        ) from error
    first = min(found, key=lambda entry: entry[0] is not socket.AF_INET)
    return str(first[4][0])


def tls_context(folder: Path) -> ssl.SSLContext:
    """Return how to speak TLS: who the engine must be, and who we are.

    Raises:
        RuntimeUnavailableError: The folder does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except OSError as error:
        raise RuntimeUnavailableError(explain_certificates(folder, error)) from error
    return context


def connect(host: str | None, tls: ssl.SSLContext | None = None) -> Docker:
    """Return a client of the engine; nothing is sent yet.

    Args:
        host: As in `DOCKER_HOST`; None for that variable, the current context, or the usual socket.
        tls: How to speak TLS, over TCP.

    Raises:
        RuntimeUnavailableError: There is no telling where the engine is.
    """
    try:
        if host is None or tls is None or not TCP.match(host):
            return Docker(host)
        return Docker(TCP.sub("https://", host, count=1), ssl_context=tls)
    except (AssertionError, ValueError, ImportError, OSError, DockerError) as error:
        raise RuntimeUnavailableError(explain_host(host, error)) from error
