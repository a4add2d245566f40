"""Rate limits: token buckets whose state is one number.

That number is `full_at`, the time at which a bucket will be full again (virtual scheduling, a form of the
generic cell rate algorithm, ITU-T I.371 annex A). A full bucket needs no state, an idle one needs no updates,
and a debt is a later time. Times are in monotonic seconds.
"""

from dataclasses import dataclass, fields
from math import ceil, inf

MAX_LIMIT = 10**12
"""Largest value of a limit."""
SLACK = 1e-6
"""Rounding error, in seconds."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a bucket fills and how much it holds.

    Attributes:
        per_minute: Tokens added per minute; at least 1.
        burst: Capacity, which may be taken at once; at least 1.
    """

    per_minute: int
    burst: int

    @property
    def interval(self) -> float:
        """Seconds in which one token is added."""
        return 60.0 / self.per_minute


@dataclass(frozen=True, slots=True)
class Allowance:
    """Limits of a client. None leaves a limit to another allowance, 0 is no limit.

    Attributes:
        rpm: Requests per minute.
        burst: Requests at once; a minute's worth if it is not set.
        tpm: Tokens per minute, of prompts and answers together.
        concurrency: Concurrent requests.
    """

    rpm: int | None = None
    burst: int | None = None
    tpm: int | None = None
    concurrency: int | None = None

    def over(self, base: "Allowance") -> "Allowance":
        """Return this allowance, with its open limits taken from another.

        >>> Allowance(rpm=0).over(Allowance(rpm=60, tpm=1000))
        Allowance(rpm=0, burst=None, tpm=1000, concurrency=None)
        """
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return Allowance(**{name: getattr(base, name) if own[name] is None else own[name] for name in own})

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return bool(self.rpm or self.tpm or self.concurrency)

    @property
    def requests(self) -> Rate | None:
        """Rate of requests; None without a limit."""
        return Rate(self.rpm, self.burst or self.rpm) if self.rpm else None

    @property
    def tokens(self) -> Rate | None:
        """Rate of tokens; None without a limit."""
        return Rate(self.tpm, self.tpm) if self.tpm else None


UNSAID = Allowance()
"""An allowance that leaves every limit to another."""


class Bucket:
    """A token bucket.

    Args:
        rate: How fast it fills and how much it holds; None for a bucket that is never empty.

    Attributes:
        rate: As passed.
        full_at: When it will be full again.
    """

    __slots__ = ("_capacity", "_interval", "full_at", "rate")

    def __init__(self, rate: Rate | None = None) -> None:
        self.full_at = 0.0
        self.rate: Rate | None = None
        self._interval, self._capacity = 0.0, inf  # seconds for one, and from empty to full
        self.change(rate, 0.0)

    def __repr__(self) -> str:
        return f"<Bucket [{self.rate}, full at {self.full_at:g}]>"

    def change(self, rate: Rate | None, now: float) -> None:
        """Fill at another rate from now on; the missing amount stays the same.

        >>> bucket = Bucket(Rate(60, 10))
        >>> bucket.charge(now=100.0, cost=5)
        >>> bucket.change(Rate(600, 10), now=100.0)
        >>> bucket.remaining(now=100.0)
        5
        """
        missing = max(0.0, self.full_at - now) / self._interval if self._interval else 0.0
        self.rate = rate
        self._interval = rate.interval if rate else 0.0
        self._capacity = rate.burst * rate.interval if rate else inf
        self.full_at = now + missing * self._interval if missing else 0.0

    def shortage(self, now: float, cost: float = 1.0) -> float:
        """Return the seconds until it holds `cost` tokens; 0 when it does.

        >>> bucket = Bucket(Rate(60, 2))
        >>> bucket.charge(now=100.0, cost=2)
        >>> bucket.shortage(now=100.0), bucket.shortage(now=101.0)
        (1.0, 0.0)
        """
        wait = (self.full_at - now if self.full_at > now else 0.0) + cost * self._interval - self._capacity
        return wait if wait > SLACK else 0.0

    def charge(self, now: float, cost: float = 1.0) -> None:
        """Take `cost` tokens; if it holds fewer, the rest is a debt."""
        full_at = self.full_at
        self.full_at = (full_at if full_at > now else now) + cost * self._interval  # noqa: FURB136 - hot

    def take(self, now: float, cost: float = 1.0) -> float:
        """Take `cost` tokens if it holds them; otherwise return `shortage` and take nothing."""
        wait = self.shortage(now, cost)
        if not wait:
            self.charge(now, cost)
        return wait

    def remaining(self, now: float) -> int:
        """Return how much may be taken now; 0 in debt. Only for a bucket with a rate.

        >>> bucket = Bucket(Rate(60, 10))
        >>> bucket.charge(now=100.0, cost=3.5)
        >>> bucket.remaining(now=100.0)
        6
        """
        missing = self.full_at - now if self.full_at > now else 0.0
        return max(0, int((self._capacity - missing) / self._interval + SLACK))

    def headers(self, kind: bytes, now: float) -> bytes:
        r"""Return rate-limit header lines with OpenAI's names; none without a rate.

        They hold the capacity, the remaining tokens, and the time until the bucket is full.

        >>> bucket = Bucket(Rate(60, 10))
        >>> bucket.charge(now=100.0)
        >>> bucket.headers(b"requests", now=100.0).decode().splitlines()[1:]
        ['x-ratelimit-remaining-requests: 9', 'x-ratelimit-reset-requests: 1s']
        """
        if self.rate is None:
            return b""
        limit, left = self.rate.burst, self.remaining(now)
        reset = duration(self.full_at - now).encode() if self.full_at > now else b"0s"
        return b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n" % (
            kind,
            limit,
            kind,
            left,
            kind,
            reset,
        )


def duration(seconds: float) -> str:
    """Return a duration in the format of OpenAI's headers.

    >>> [duration(s) for s in (0.0, 0.12, 1.0, 60.5, 3725.0)]
    ['0s', '120ms', '1s', '1m1s', '1h2m5s']
    """
    if 0 < seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
