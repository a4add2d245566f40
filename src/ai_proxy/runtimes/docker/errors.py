"""Explains the errors of the Docker engine, and says what to do."""

import re
import ssl
from pathlib import Path
from typing import NamedTuple

from ai_proxy.core.service import DockerLaunch

URL = "its URL (server.docker.host or DOCKER_HOST)"


def explain_unreachable(host: str | None, error: Exception) -> str:
    """Return why the engine cannot be reached.

    >>> explain_unreachable("unix:///run/docker.sock", TimeoutError())
    'Docker at unix:///run/docker.sock does not answer in time: it hangs or is overloaded; see its log'
    """
    place = f"Docker at {host}" if host else "Docker"
    causes = _causes(error)
    if any(isinstance(cause, PermissionError) for cause in causes):
        return (
            f"this user may not use {place} (permission denied on its socket): "
            "join the group 'docker', or use rootless Docker"
        )
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return f"{place} is away (there is no such socket): start it, or correct {URL}"
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return f"{place} does not answer in time: it hangs or is overloaded; see its log"
    if distrust := [cause for cause in causes if isinstance(cause, ssl.SSLError)]:
        return _distrust(place, distrust[-1])
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    reason = reasons[-1] if reasons else str(error) or type(error).__name__
    return f"{place} is away ({reason}): start it, or correct {URL}"


def _distrust(place: str, error: ssl.SSLError) -> str:
    reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
    return f"{place} and the proxy do not trust each other ({reason}): correct the certificates"


WANTS_TLS = "HTTP request to an HTTPS server"
"""Part of the answer of a TLS engine to a plain request."""


def explain_wants_tls(host: str | None) -> str:
    """Return what to do about an engine that requires TLS."""
    return (
        f"Docker at {host} wants TLS: set server.docker.certificates, "
        "or DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"
    )


def explain_certificates(folder: Path, error: OSError) -> str:
    """Return why certificates cannot be used.

    >>> explain_certificates(Path("/certs"), FileNotFoundError(2, "No such file or directory"))
    'the certificates for Docker in /certs cannot be used (No such file or directory): the folder must hold \
ca.pem, cert.pem and key.pem'
    """
    return (
        f"the certificates for Docker in {folder} cannot be used ({error.strerror or error}): "
        "the folder must hold ca.pem, cert.pem and key.pem"
    )


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and its causes.

    aiohttp keeps the system's error as `os_error`; a refused Unix socket has it as its cause.
    """
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        inner = getattr(current, "os_error", None)
        current = inner if isinstance(inner, OSError) else current.__cause__ or current.__context__
    return found


def explain_host(host: str | None, error: Exception) -> str:
    """Return why the engine cannot be located.

    >>> explain_host(None, AssertionError())
    'no Docker engine is found: install and start Docker, or set DOCKER_HOST'
    """
    if host is None and isinstance(error, AssertionError):
        return "no Docker engine is found: install and start Docker, or set DOCKER_HOST"
    if host is None:
        return f"the current Docker context cannot be used: {error}; choose another, or set DOCKER_HOST"
    if isinstance(error, ImportError):
        return f"DOCKER_HOST={host} needs a package that is not installed: {error}"
    return (
        f"DOCKER_HOST={host} cannot be used ({error}): "
        "it must be like unix:///run/docker.sock, tcp://host:2376 or ssh://user@host"
    )


class Meaning(NamedTuple):
    """What a message of an engine means, and what to do about it."""

    pattern: str
    text: str


MEANINGS = (
    Meaning(
        r"invalid reference format|invalid repository name",
        "{image!r} is not the name of an image: correct 'image'",
    ),
    Meaning(
        r"no such image|image not known",
        "image {image} is not on this machine and 'pull' is '{pull}': run 'docker pull {image}', "
        "or let the proxy do it with pull: missing",
    ),
    Meaning(
        r"listen \S+ (?P<name>\S+):\d+: bind: cannot assign requested address",
        "ports cannot be published on {name}, which is not an address of Docker's machine: "
        "set server.docker.address to the one by which the proxy reaches it",
    ),
    Meaning(
        r"port is already allocated|address already in use|ports are not available",
        "{port} is taken: end what listens there, or choose another host_port",
    ),
    Meaning(
        r"(bind source path does not exist:|statfs) (?P<name>.*?)(: no such file.*)?$",
        "{name} does not exist on the host: create it, or correct 'volumes'",
    ),
    Meaning(
        r"could not select device driver|nvidia-container-cli|no known GPU vendor|unresolvable CDI devices",
        "the service needs GPUs, and Docker has none to give: install the driver and the NVIDIA Container "
        "Toolkit, or set gpus: none",
    ),
    Meaning(
        r"network (with name or ID )?(?P<name>[^\s:]+)(: network)? not found",
        "Docker has no network {name}: run 'docker network create {name}', or correct 'networks'",
    ),
    Meaning(
        r"docker-init|exec: \"(tini|catatonit)|container-init binary not found",
        "the engine's own init program is missing on its host: install docker-init (Debian: tini), or "
        "catatonit for Podman",
    ),
    Meaning(
        r"exec: \"(?P<name>[^\"]*)\": .*(not found|no such file|permission denied)",
        "{name} cannot be executed in {image}: correct 'command', or use another image",
    ),
    Meaning(
        r"unable to find (?P<name>(user|group) [^:]*)",
        "{image} has no {name}: correct 'user', or use numbers",
    ),
    Meaning(
        r"pull access denied|manifest .*unknown|(manifest for|repository) .* not found|not found: manifest",
        "image {image} is not in its registry, or requires a login: correct 'image', or run 'docker login' "
        "as the proxy's user",
    ),
    Meaning(
        r"unauthorized|authentication required|resource is denied|no basic auth credentials",
        "the registry refuses image {image}: run 'docker login' as the proxy's user",
    ),
    Meaning(
        r"dial tcp|no such host|i/o timeout|connection refused|deadline exceeded|handshake|Client.Timeout",
        "the registry of image {image} cannot be reached ({message}): check the network, or load the image "
        "with 'docker load'",
    ),
    Meaning(
        r"no space left on device",
        "Docker's disk is full: make room, for example with 'docker system prune'",
    ),
)
"""Messages of Docker and Podman, each with what to do; the first match counts."""


def explain(launch: DockerLaunch, message: str) -> str:
    """Return what the engine's refusal means for a service, and what to do.

    >>> print(explain(DockerLaunch("x", 80), "bind source path does not exist: /models"))
    /models does not exist on the host: create it, or correct 'volumes'
    """
    port = f"port {launch.host_port}" if launch.host_port else "the port that Docker chose"
    for meaning in MEANINGS:
        if match := re.search(meaning.pattern, message, re.IGNORECASE):
            name = match.groupdict().get("name") or ""
            return meaning.text.format(
                image=launch.image, pull=launch.pull, port=port, name=name, message=message.strip()
            )
    return f"Docker refused: {message}"


def name_taken(name: str, holder: str, owner: str | None) -> str:
    """Return who uses the name of a container.

    >>> name_taken("ai-proxy-x", "0123456789abcdef", None)
    "the name ai-proxy-x is taken by container 0123456789ab, which is not of an ai-proxy: rename it \
with 'docker rename', or give the service another id"
    """
    whose = f"of another ai-proxy ({owner})" if owner is not None else "not of an ai-proxy"
    return (
        f"the name {name} is taken by container {holder[:12]}, which is {whose}: "
        "rename it with 'docker rename', or give the service another id"
    )
