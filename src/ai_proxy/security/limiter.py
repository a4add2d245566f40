"""Counts what each key and each address takes, and says when that is too much."""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from ai_proxy.core.errors import RateLimitedError
from ai_proxy.core.keys import ApiKey
from ai_proxy.core.limits import (
    FULL,
    UNSAID,
    Allowance,
    Rate,
    changed,
    charge,
    duration,
    shortage,
    standing,
    standing_headers,
)
from ai_proxy.core.policy import Headers, Policy, parse_address

MAX_METERS = 20_000
"""Keys and addresses of which something is remembered at once."""
RETRY_WHEN_BUSY = 1.0
"""Seconds after which a place among concurrent requests may be free; nobody knows when."""


class Meter:
    """What one key or address has taken.

    Attributes:
        own: What it is allowed of its own,
        base: and where that says nothing.
        limits: Whether there is any limit.
        active: Requests in flight.
    """

    __slots__ = (
        "_concurrency",
        "_requests",
        "_requests_full_at",
        "_tokens",
        "_tokens_full_at",
        "_whose",
        "active",
        "base",
        "limits",
        "own",
    )

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._requests_full_at = self._tokens_full_at = FULL
        self.active = 0
        self.own = self.base = UNSAID
        self.limits = False
        self._requests: Rate | None = None
        self._tokens: Rate | None = None
        self._concurrency = 0

    def allow(self, own: Allowance, base: Allowance, now: float) -> None:
        """Apply an allowance from now on; what was taken stays taken."""
        allowance = own.over(base)
        requests, tokens = allowance.requests, allowance.tokens
        self._requests_full_at = changed(self._requests, requests, self._requests_full_at, now)
        self._tokens_full_at = changed(self._tokens, tokens, self._tokens_full_at, now)
        self._requests, self._tokens = requests, tokens
        self._concurrency = allowance.concurrency or 0
        self.own, self.base, self.limits = own, base, allowance.limits

    def check(self, now: float) -> None:
        """Refuse a request that would be too much.

        Raises:
            RateLimitedError: It would.
        """
        requests, tokens, most = self._requests, self._tokens, self._concurrency
        if most and self.active >= most:
            raise self._refusal(f"have {most} requests in flight", RETRY_WHEN_BUSY)
        if requests and (wait := shortage(requests, self._requests_full_at, now)):
            raise self._refusal(f"make {requests.per_minute} requests per minute", wait)
        if tokens and (wait := shortage(tokens, self._tokens_full_at, now)):
            raise self._refusal(f"use {tokens.per_minute} tokens per minute", wait)

    def begin(self, now: float) -> None:
        """Count a request."""
        self.active += 1
        if self._requests:
            self._requests_full_at = charge(self._requests, self._requests_full_at, now, 1.0)

    def end(self, now: float, tokens: int) -> None:
        """Count the end of a request, and charge what it used."""
        self.active -= 1
        if self._tokens and tokens > 0:
            self._tokens_full_at = charge(self._tokens, self._tokens_full_at, now, tokens)

    def headers(self, now: float) -> Headers:
        """Return how it stands, as clients are told."""
        found: Headers = ()
        if self._requests:
            found += standing_headers("requests", standing(self._requests, self._requests_full_at, now))
        if self._tokens:
            found += standing_headers("tokens", standing(self._tokens, self._tokens_full_at, now))
        return found

    def is_idle(self, now: float) -> bool:
        """Tell whether it can be forgotten: a new one would be no different."""
        return not self.active and max(self._requests_full_at, self._tokens_full_at) <= now

    def _refusal(self, what: str, wait: float) -> RateLimitedError:
        return RateLimitedError(f"{self._whose} may {what}; try again in {duration(wait)}", retry_after=wait)


class Pass:
    """One request's right to go on, to be given back when it is over."""

    __slots__ = ("_meters", "_now")

    def __init__(self, meters: tuple[Meter, ...], now: Callable[[], float]) -> None:
        self._meters = meters
        self._now = now

    def headers(self) -> Headers:
        """Return what the client is told of its limits: those of the key before those of the address."""
        now = self._now()
        return next((headers for meter in self._meters if (headers := meter.headers(now))), ())

    def end(self, tokens: int = 0) -> None:
        """Give it back; again is no error.

        Args:
            tokens: What the request used, of prompt and answer; charged as a debt where that is too much.
        """
        meters, self._meters = self._meters, ()
        now = self._now() if meters else 0.0
        for meter in meters:
            meter.end(now, tokens)


class Limiter:
    """Lets requests pass, as the policy and their keys allow.

    Args:
        policy: Returns the policy in force.
        now: Returns monotonic seconds.
    """

    def __init__(self, policy: Callable[[], Policy], now: Callable[[], float]) -> None:
        self._policy = policy
        self._now = now
        self._keys: dict[str, Meter] = {}
        self._addresses: dict[str, Meter] = {}
        self._unlimited = Pass((), now)

    def __repr__(self) -> str:
        return f"<Limiter [{len(self._keys)} keys, {len(self._addresses)} addresses]>"

    def enter(self, key: ApiKey | None, address: str) -> Pass:
        """Count a request, unless it is too much: then nothing is counted.

        Args:
            key: That it came with; None for none, or for one that is not good.
            address: Of the client.

        Raises:
            RateLimitedError: Says when to try again.
        """
        policy = self._policy()
        mine = self._of_key(key, policy) if key is not None else None
        theirs = self._of_address(address, policy)
        if mine is None and theirs is None:
            return self._unlimited
        now = self._now()
        meters = tuple(filter(None, (mine, theirs)))
        for meter in meters:
            meter.check(now)
        for meter in meters:
            meter.begin(now)
        return Pass(meters, self._now)

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
