"""Counts what each key and each address takes, and refuses what is too much."""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from math import inf

from ai_proxy.core.errors import RateLimitedError
from ai_proxy.core.keys import ApiKey
from ai_proxy.core.limits import UNSAID, Allowance, Bucket, duration
from ai_proxy.core.policy import Policy, parse_address

MAX_METERS = 20_000
"""Keys and addresses whose use is remembered at once."""
RETRY_WHEN_BUSY = 1.0
"""Seconds after which a place among concurrent requests may be free; a guess."""


class Meter:
    """How much one key or address has taken, and how much it may.

    Attributes:
        own: The allowance of the key itself, and
        base: that of the policy, for limits that the key does not set.
        limits: Whether there is any limit.
        active: Requests in flight, and
        places: how many there may be.
        requests: The bucket of requests, and
        tokens: that of tokens.
    """

    __slots__ = ("_whose", "active", "base", "limits", "own", "places", "requests", "tokens")

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self.active, self.places = 0, inf
        self.own = self.base = UNSAID
        self.limits = False
        self.requests, self.tokens = Bucket(), Bucket()

    def allow(self, own: Allowance, base: Allowance, now: float) -> None:
        """Apply an allowance from now on; what was taken stays taken."""
        allowance = own.over(base)
        self.requests.change(allowance.requests, now)
        self.tokens.change(allowance.tokens, now)
        self.places = allowance.concurrency or inf
        self.own, self.base, self.limits = own, base, allowance.limits

    @property
    def limits_tokens(self) -> bool:
        """Whether tokens are limited."""
        return self.tokens.rate is not None

    def is_idle(self, now: float) -> bool:
        """Tell whether it can be forgotten: a new one would be no different."""
        return not self.active and max(self.requests.full_at, self.tokens.full_at) <= now

    def refusal(self, now: float) -> RateLimitedError:
        """Return the error for a request that is too much."""
        if self.active >= self.places:
            may, wait = f"have {self.places:g} requests in flight", RETRY_WHEN_BUSY
        elif wait := self.requests.shortage(now):
            may = f"make {self.requests.rate.per_minute if self.requests.rate else 0} requests per minute"
        else:
            may = f"use {self.tokens.rate.per_minute if self.tokens.rate else 0} tokens per minute"
            wait = self.tokens.shortage(now)
        return RateLimitedError(f"{self._whose} may {may}; try again in {duration(wait)}", retry_after=wait)


type Meters = tuple[Meter, ...]
"""What counts a request: the meter of its key before that of its address; empty where nothing is limited."""


def enter(meters: Meters, now: float) -> None:
    """Count a request, unless it is too much: then nothing is counted.

    Raises:
        RateLimitedError: Says when to try again.
    """
    for meter in meters:
        if meter.active >= meter.places or meter.requests.shortage(now) or meter.tokens.shortage(now):
            raise meter.refusal(now)
    for meter in meters:
        meter.active += 1
        meter.requests.charge(now)


def leave(meters: Meters, now: float, tokens: int) -> None:
    """Count the end of a request, and charge what it used."""
    for meter in meters:
        meter.active -= 1
        if tokens:
            meter.tokens.charge(now, tokens)


def rate_limit_headers(meters: Meters, now: float) -> bytes:
    """Return the header lines about a client's limits: its key's, else its address's; none without limits."""
    for meter in meters:
        if lines := meter.requests.headers(b"requests", now) + meter.tokens.headers(b"tokens", now):
            return lines
    return b""


class Limiter:
    """Holds the meters of keys and addresses.

    Args:
        policy: Returns the policy in force.
        now: Returns monotonic seconds.
    """

    def __init__(self, policy: Callable[[], Policy], now: Callable[[], float]) -> None:
        self._policy = policy
        self._now = now
        self._keys: dict[str, Meter] = {}
        self._addresses: dict[str, Meter] = {}

    def __repr__(self) -> str:
        return f"<Limiter [{len(self._keys)} keys, {len(self._addresses)} addresses]>"

    def meters(self, key: ApiKey | None, address: str) -> Meters:
        """Return the meters of a client, valid for as long as neither its key nor the policy changes.

        Args:
            key: Of its requests; None without one, or for one that is not valid.
            address: Of the client.
        """
        policy = self._policy()
        mine = self._of_key(key, policy) if key is not None else None
        return tuple(filter(None, (mine, self._of_address(address, policy))))

    def _of_key(self, key: ApiKey, policy: Policy) -> Meter | None:
        meter = self._keys.get(key.id)
        if meter is None:
            meter = self._keys[key.id] = self._new(self._keys, f"the API key {key.id}")
        own, base = key.grant.allowance, policy.per_key
        if meter.own is not own or meter.base is not base:
            meter.allow(own, base, self._now())
        return meter if meter.limits else None

    def _of_address(self, address: str, policy: Policy) -> Meter | None:
        base = policy.per_ip
        if not base.limits:
            return None
        name = metered_address(address)
        meter = self._addresses.get(name)
        if meter is None:
            meter = self._addresses[name] = self._new(self._addresses, f"the address {name}")
        if meter.base is not base:
            meter.allow(UNSAID, base, self._now())
        return meter

    def _new(self, meters: dict[str, Meter], whose: str) -> Meter:
        if len(meters) >= MAX_METERS:
            now = self._now()
            for name in [name for name, meter in meters.items() if meter.is_idle(now)]:
                del meters[name]
        if len(meters) >= MAX_METERS:
            for name in [name for name, meter in meters.items() if not meter.active][: MAX_METERS // 2]:
                del meters[name]
        return Meter(whose)


@lru_cache(maxsize=MAX_METERS)
def metered_address(address: str) -> str:
    """Return what is counted for an address: of IPv6 a customer's whole network, which is a /64 at least.

    >>> metered_address("192.0.2.7"), metered_address("2001:db8::1"), metered_address("2001:db8::2")
    ('192.0.2.7', '2001:db8::/64', '2001:db8::/64')
    """
    if ":" not in address:
        return address
    parsed = parse_address(address)
    return str(IPv6Network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
