"""Addresses at which clients reach a listener: on its own machine, and from elsewhere."""

import contextlib
import socket
from dataclasses import dataclass

from ai_proxy.core.service import Upstream
from ai_proxy.core.settings import TlsMode, TlsSettings

_OUTSIDE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses reserved for documentation: RFC 5737, section 3, and RFC 3849."""


@dataclass(slots=True)
class Addresses:
    """URLs of the proxy's listeners for clients on this machine; set when they listen.

    Attributes:
        http: URL of the public listener.
        ollama: URL of the listener with Ollama's API; None without one.
    """

    http: str = ""
    ollama: str | None = None


def local_host(host: str) -> str:
    """Return the address at which its own machine reaches a listener.

    >>> local_host("0.0.0.0"), local_host("::"), local_host("10.0.0.5")
    ('127.0.0.1', '::1', '10.0.0.5')
    """
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - replaced


def local_url(host: str, port: int, *, tls: bool = False) -> str:
    """Return the URL at which a client on this machine reaches a listener.

    >>> local_url("0.0.0.0", 11000), local_url("::1", 80), local_url("gpu-box", 11000, tls=True)
    ('http://127.0.0.1:11000', 'http://[::1]:80', 'https://gpu-box:11000')
    """
    return Upstream(local_host(host), port, tls=tls).url


def endpoints(host: str, port: int, tls: TlsSettings) -> tuple[str, ...]:
    """Return the URLs at which users reach a proxy.

    Args:
        host: Address it listens on.
        port: Port it listens on.
        tls: Its TLS settings.

    >>> endpoints("127.0.0.1", 11000, TlsSettings()), endpoints("::1", 80, TlsSettings())
    (('http://127.0.0.1:11000',), ('http://[::1]',))
    >>> from ai_proxy.core.settings import AcmeSettings
    >>> endpoints("0.0.0.0", 443, TlsSettings(TlsMode.HTTPS_ACME, acme=AcmeSettings(("gpu.example.com",))))
    ('https://gpu.example.com',)
    """
    names = tls.acme.domains if tls.mode is TlsMode.HTTPS_ACME else names_of(host)
    scheme, usual = ("http", 80) if tls.mode is TlsMode.OFF else ("https", 443)
    suffix = "" if port == usual else f":{port}"
    return tuple(f"{scheme}://{f'[{name}]' if ':' in name else name}{suffix}" for name in names)


def names_of(host: str) -> tuple[str, ...]:
    """Return the addresses of a listener; for a wildcard address, those that users need.

    >>> names_of("10.0.0.5"), names_of("0.0.0.0")[0]
    (('10.0.0.5',), '127.0.0.1')
    """
    local = local_host(host)
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    return (local,) if local == host else (local, *outward_address(family))


def outward_address(family: socket.AddressFamily) -> tuple[str, ...]:
    """Return this machine's address in its network, if it has one. Sends no packet."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((_OUTSIDE[family], 9))
        return (str(probe.getsockname()[0]),)
    return ()
