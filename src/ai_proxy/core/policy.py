"""Who may call from where, and how much: the facts of the policy, and what they decide."""

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


@dataclass(frozen=True, slots=True)
class Cors:
    """Which web pages of other origins may call, and how (Fetch standard, CORS protocol).

    Attributes:
        origins: As browsers send them, `https://chat.example.com`; `*` for all; empty for none.
        methods: They may use.
        headers: They may send, in lower case; `*` for all.
        expose: Response headers they may read.
        credentials: Whether browsers may add cookies and their own logins; never with `*`.
        max_age: Seconds for which a browser remembers the answer.
    """

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = METHODS
    headers: tuple[str, ...] = (ANY,)
    expose: tuple[str, ...] = EXPOSED
    credentials: bool = False
    max_age: int = 600


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for every request, on every path.

    Attributes:
        allowlist: Networks that clients may call from; empty for all.
        cors: Which web pages may call.
        per_key: What a key may take, where it says nothing of its own.
        per_ip: What an address may take.
        trusted_proxies: Networks whose `X-Forwarded-For` is believed.
        max_request_mb: Largest body of a request, in MB; 0 for no limit.
    """

    allowlist: tuple[Network, ...] = ()
    cors: Cors = field(default_factory=Cors)
    per_key: Allowance = UNSAID
    per_ip: Allowance = UNSAID
    trusted_proxies: tuple[Network, ...] = ()
    max_request_mb: int = 0


def parse_address(text: str) -> Address | None:
    """Read an address as sockets and forwarding headers write it; None for anything else.

    IPv4 within IPv6 is IPv4: a listener on both calls its IPv4 clients so.

    >>> parse_address("::ffff:10.0.0.1"), parse_address("[2001:db8::1]:443"), parse_address("10.0.0.1:80")
    (IPv4Address('10.0.0.1'), IPv6Address('2001:db8::1'), IPv4Address('10.0.0.1'))
    >>> parse_address("unknown")
    """
    bare = text.strip().strip('"')
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_within(address: Address, networks: Sequence[Network]) -> bool:
    """Tell whether an address lies in one of the networks."""
    return any(address in network for network in networks)


def is_allowed(address: Address | None, allowlist: Sequence[Network]) -> bool:
    """Tell whether a client may call; what has no address may only where everybody may.

    >>> from ipaddress import ip_network
    >>> [is_allowed(parse_address(a), [ip_network("10.0.0.0/8")]) for a in ("10.1.2.3", "::1", "?")]
    [True, False, False]
    """
    return not allowlist or (address is not None and is_within(address, allowlist))


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return who calls: the last hop that is not one of our own proxies.

    Each proxy adds the address it was called from at the right end, so only what trusted ones added is
    believed: from the right, up to the first address that is not trusted. Where one of them added something
    that is no address, the hop that added it is as far as one can see.

    Args:
        peer: Address of the other end of the connection.
        forwarded: Values of `X-Forwarded-For`, one for each such header, in their order.
        trusted: Networks of our own proxies.

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
    """The answer to a browser that asks before it calls.

    Attributes:
        allowed: Whether it may.
        headers: Of the answer.
        reason: Why it may not; empty where it may.
    """

    allowed: bool
    headers: Headers = ()
    reason: str = ""


def preflight(cors: Cors, origin: str, method: str, wanted: str = "") -> Preflight:
    """Answer an OPTIONS request that has an `Origin` and an `Access-Control-Request-Method`.

    Args:
        cors: The policy.
        origin: Of the page.
        method: It wants to use.
        wanted: Value of `Access-Control-Request-Headers`; empty for none.

    >>> preflight(Cors(("https://a.example",)), "https://b.example", "POST").reason
    "the policy does not name the origin 'https://b.example'"
    """
    names = [name.strip().lower() for name in wanted.split(",") if name.strip()]
    reason = _objection(cors, origin, method, names)
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
    """Return what is added to the response of a request from a page; nothing for a page that may not call.

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
    """Tell whether pages of an origin may call; `null`, which any sandboxed page has, only where all may."""
    return ANY in cors.origins or origin.lower() in cors.origins


def is_local_host(host: str) -> bool:
    """Tell whether a `Host` header can belong to an honest caller of a loopback listener.

    A page that has its own name resolved to 127.0.0.1 (DNS rebinding) comes with that name. An address has
    no name to rebind, and `localhost` is never asked of anybody (RFC 6761 section 6.3).

    >>> [is_local_host(h) for h in ("localhost:11000", "[::1]:11000", "127.0.0.1", "evil.example", "")]
    [True, True, True, False, False]
    """
    if parse_address(host) is not None:
        return True
    name = host.partition(":")[0].rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


_VARY_PREFLIGHT: Headers = (
    ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
)


def _objection(cors: Cors, origin: str, method: str, names: Sequence[str]) -> str:
    if not is_origin_allowed(cors, origin):
        return f"the policy does not name the origin {origin[:200]!r}"
    if method not in cors.methods:
        return f"the policy does not let pages use {method[:50]}"
    refused = [] if ANY in cors.headers else [name for name in names if name not in cors.headers]
    return f"the policy does not let pages send {', '.join(refused)[:200]}" if refused else ""


def _origin_headers(cors: Cors, origin: str) -> Headers:
    if cors.credentials:
        return (("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true"))
    return (("Access-Control-Allow-Origin", ANY if ANY in cors.origins else origin),)
