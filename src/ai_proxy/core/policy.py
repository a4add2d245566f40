"""The policy: allowlist, CORS, rate limits, trusted proxies."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from ai_proxy.core.limits import UNSAID, Allowance

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network
type Headers = tuple[tuple[str, str], ...]

ANY = "*"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
EXPOSED = ("X-Request-ID", "X-AI-Proxy-Error", "X-AI-Proxy-Warning", "Retry-After")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://((?:\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::\d{1,5})?)", re.ASCII)
"""An origin in lower case (RFC 6454 section 6.2), with its host and port as a group."""

_WITH_PORT = re.compile(r"\[([^]]*)\](?::\d*)?|([^:]*):\d*", re.ASCII)
"""An address with a port, or in brackets."""


@dataclass(frozen=True, slots=True)
class Cors:
    """Which web pages of other origins have access (Fetch standard, CORS protocol).

    Attributes:
        origins: Allowed origins, `https://chat.example.com`; `*` for all; empty for none.
        methods: Allowed methods.
        headers: Allowed request headers, in lower case; `*` for all.
        expose: Response headers that pages may read.
        credentials: Whether browsers may send cookies and credentials; never with `*`.
        max_age: Seconds for which a browser caches a preflight.
    """

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = METHODS
    headers: tuple[str, ...] = (ANY,)
    expose: tuple[str, ...] = EXPOSED
    credentials: bool = False
    max_age: int = 600


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules for every request, on every path.

    Attributes:
        allowlist: Networks of clients that have access; empty for all.
        cors: Which web pages have access.
        per_key: Limits of a key that sets none of its own.
        per_ip: Limits of an address.
        trusted_proxies: Networks whose `X-Forwarded-For` is believed.
        max_request_mb: Largest body of a request, in MB; 0 for no limit.
    """

    allowlist: tuple[Network, ...] = ()
    cors: Cors = field(default_factory=Cors)
    per_key: Allowance = UNSAID
    per_ip: Allowance = UNSAID
    trusted_proxies: tuple[Network, ...] = ()
    max_request_mb: int = 0


NOBODY = Policy(allowlist=(IPv4Network("0.0.0.0/32"),))
"""Permits no client: none has the unspecified address."""


def parse_address(text: str) -> Address | None:
    """Read an address as sockets and forwarding headers write it; None for anything else.

    An IPv4-mapped IPv6 address counts as IPv4: a dual-stack listener reports IPv4 clients that way.

    >>> parse_address("::ffff:10.0.0.1"), parse_address("[2001:db8::1]:443"), parse_address("10.0.0.1:80")
    (IPv4Address('10.0.0.1'), IPv6Address('2001:db8::1'), IPv4Address('10.0.0.1'))
    >>> parse_address("fe80::1%eth0"), parse_address("unknown"), parse_address("10.0.0.1:80.example")
    (IPv6Address('fe80::1'), None, None)
    """
    bare = text.strip().strip('"')
    if (with_port := _WITH_PORT.fullmatch(bare)) is not None:
        bare = with_port[1] or with_port[2] or ""
    try:
        address = ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))  # without its zone
    return address


def is_within(address: Address, networks: Sequence[Network]) -> bool:
    """Return whether an address is in one of the networks."""
    return any(address in network for network in networks)


def is_allowed(address: Address | None, allowlist: Sequence[Network]) -> bool:
    """Return whether a client has access; a client without an address only if the allowlist is empty.

    >>> from ipaddress import ip_network
    >>> [is_allowed(parse_address(a), [ip_network("10.0.0.0/8")]) for a in ("10.1.2.3", "::1", "?")]
    [True, False, False]
    """
    return not allowlist or (address is not None and is_within(address, allowlist))


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address: the last hop that is not a trusted proxy.

    Each proxy appends the address of its client on the right. So this reads from the right, and stops at the
    first address that is not trusted. If a trusted proxy appended something that is not an address, that
    proxy counts as the client.

    Args:
        peer: Address of the other end of the connection.
        forwarded: Values of the `X-Forwarded-For` headers, in their order.
        trusted: Networks of trusted proxies.

    >>> from ipaddress import ip_network
    >>> client_address("10.0.0.1", ["1.1.1.1, 2.2.2.2"], [ip_network("10.0.0.0/8")])
    '2.2.2.2'
    >>> client_address("3.3.3.3", ["1.1.1.1"], [ip_network("10.0.0.0/8")])
    '3.3.3.3'
    """
    client = parse_address(peer)
    hops = [hop for value in forwarded for hop in value.split(",")]
    while client is not None and hops and is_within(client, trusted):
        hop = parse_address(hops.pop())
        if hop is None:
            break
        client = hop
    return peer if client is None else str(client)


@dataclass(frozen=True, slots=True)
class Preflight:
    """The response to a CORS preflight.

    Attributes:
        allowed: Whether the request is allowed.
        headers: Headers of the response.
        reason: Why it is not allowed; empty when it is.
    """

    allowed: bool
    headers: Headers = ()
    reason: str = ""


def preflight(cors: Cors, origin: str, method: str, wanted: str = "") -> Preflight:
    """Answer an OPTIONS request that has an `Origin` and an `Access-Control-Request-Method`.

    Args:
        cors: The policy.
        origin: Origin of the page.
        method: Method of the request that follows.
        wanted: Value of `Access-Control-Request-Headers`; empty for none.

    >>> preflight(Cors(("https://a.example",)), "https://b.example", "POST").reason
    "the policy does not allow the origin 'https://b.example'"
    """
    names = [name.strip().lower() for name in wanted.split(",") if name.strip()]
    reason = _refusal_reason(cors, origin, method, names)
    if reason:
        return Preflight(allowed=False, headers=_VARY_PREFLIGHT, reason=reason)
    allowed: Headers = (
        ("Access-Control-Allow-Methods", ", ".join(cors.methods)),
        ("Access-Control-Max-Age", str(cors.max_age)),
    )
    if names:
        allowed = (*allowed, ("Access-Control-Allow-Headers", ", ".join(names)))
    return Preflight(allowed=True, headers=(*_origin_headers(cors, origin), *allowed, *_VARY_PREFLIGHT))


def cors_headers(cors: Cors, origin: str) -> Headers:
    """Return the CORS headers of a response to a page; none for a page without access.

    >>> cors_headers(Cors(("*",), expose=()), "https://a.example")
    (('Access-Control-Allow-Origin', '*'),)
    """
    if not cors.origins:
        return ()
    vary: Headers = () if ANY in cors.origins else (("Vary", "Origin"),)
    if not is_origin_allowed(cors, origin):
        return vary
    expose: Headers = (("Access-Control-Expose-Headers", ", ".join(cors.expose)),) if cors.expose else ()
    return (*_origin_headers(cors, origin), *expose, *vary)


def is_origin_allowed(cors: Cors, origin: str) -> bool:
    """Return whether an origin has access; `null`, the origin of sandboxed pages, only if all have."""
    return ANY in cors.origins or origin.lower() in cors.origins


def is_local_host(host: str) -> bool:
    """Return whether a `Host` header names this machine, and not a rebound name.

    A page whose own name resolves to 127.0.0.1 (DNS rebinding) sends that name. An address cannot be rebound,
    and `localhost` is never resolved over DNS (RFC 6761 section 6.3).

    >>> [is_local_host(h) for h in ("localhost:11000", "[::1]:11000", "127.0.0.1", "evil.example", "")]
    [True, True, True, False, False]
    """
    return parse_address(host) is not None or _is_localhost(host_name(host))


def is_own_page(origin: str, host: str) -> bool:
    """Return whether a page has the origin it sends requests to, or one on this machine.

    Args:
        origin: Origin of the page.
        host: The `Host` header of the request.

    >>> is_own_page("http://gpu:11000", "gpu:11000"), is_own_page("http://localhost:3000", "127.0.0.1:11000")
    (True, True)
    >>> [is_own_page(page, "127.0.0.1:80") for page in ("https://evil.example", "http://192.0.2.1", "null")]
    [False, False, False]
    """
    page = ORIGIN.fullmatch(origin.lower())
    if page is None:
        return False
    address = parse_address(page[1])
    of_this_machine = _is_localhost(host_name(page[1])) if address is None else address.is_loopback
    return of_this_machine or page[1] == host.lower()


def host_name(host: str) -> str:
    """Return the name in a `Host` header, in lower case; empty for an invalid one.

    >>> host_name("GPU.example.com:80"), host_name("localhost:80.example.com")
    ('gpu.example.com', '')
    """
    name, _, port = host.partition(":")
    return name.rstrip(".").lower() if not port or port.isdecimal() else ""


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def is_exposed(host: str) -> bool:
    """Return whether other machines can reach a listener on an address.

    >>> [is_exposed(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "gpu-box")]
    [False, False, False, True, True, True]
    """
    address = parse_address(host)
    return host.lower() != "localhost" if address is None else not address.is_loopback


_VARY_PREFLIGHT: Headers = (
    ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
)


def _refusal_reason(cors: Cors, origin: str, method: str, names: Sequence[str]) -> str:
    if not is_origin_allowed(cors, origin):
        return f"the policy does not allow the origin {origin[:200]!r}"
    if method not in cors.methods:
        return f"the policy does not allow web pages to use {method[:50]}"
    refused = [] if ANY in cors.headers else [name for name in names if name not in cors.headers]
    return f"the policy does not allow web pages to send {', '.join(refused)[:200]}" if refused else ""


def _origin_headers(cors: Cors, origin: str) -> Headers:
    if cors.credentials:
        return (("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true"))
    return (("Access-Control-Allow-Origin", ANY if ANY in cors.origins else origin),)
