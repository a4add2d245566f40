"""The names and addresses under which clients reach a machine."""

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address

import psutil

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DNS_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)


def machine_names(more: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names and addresses of this machine, and `more`.

    No name server is asked: a look-up would block while it does not answer.
    """
    addresses = [one.address for found in psutil.net_if_addrs().values() for one in found]
    return usable_names([*LOOPBACK, *host_names(socket.gethostname()), *addresses, *more])


def host_names(hostname: str) -> tuple[str, ...]:
    """Return the names that follow from a host name, including the one in mDNS.

    >>> host_names("gpu.example.com"), host_names("gpu")
    (('gpu.example.com', 'gpu', 'gpu.local'), ('gpu', 'gpu.local'))
    """
    short = hostname.partition(".")[0]
    return tuple(dict.fromkeys((hostname, short, f"{short}.local")))


def usable_names(candidates: Iterable[str]) -> tuple[str, ...]:
    """Return the candidates that a certificate can contain, without duplicates, in their canonical form.

    Link-local addresses (RFC 4291, section 2.5.6) mean nothing without their link; hardware addresses are
    listed among the others; some host names are invalid in DNS.

    >>> usable_names(["GPU", "gpu", "10.0.0.5", "fe80::1%eth0", "02:42:ac:11:00:02", "my_box"])
    ('gpu', '10.0.0.5')
    """
    usable = (_usable(name) for name in candidates)
    return tuple(dict.fromkeys(name for name in usable if name))


def _usable(name: str) -> str:
    try:
        address = ip_address(name)
    except ValueError:
        lower = name.lower().rstrip(".")
        is_name = _DNS_NAME.fullmatch(lower) and not lower.rpartition(".")[2].isdigit()
        return lower if is_name else ""
    return "" if address.is_link_local or address.is_multicast or address.is_unspecified else str(address)
