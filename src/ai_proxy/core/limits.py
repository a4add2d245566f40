"""How much a client may take: token buckets, as pure functions of one number.

The state of a bucket is `full_at`, the moment at which it will be full again (the virtual scheduling form of
the generic cell rate algorithm, ITU-T I.371 annex A). A bucket at rest needs no state at all, nothing drifts
while nobody asks, and debt is a moment that lies further away.
"""

from dataclasses import dataclass, field, fields
from math import ceil

FULL = 0.0
"""State of a bucket that nobody has taken from; moments are monotonic seconds, which are never negative."""
MAX_LIMIT = 10**12
"""Largest number that can be set as a limit."""
SLACK = 1e-6
"""Seconds by which rounding may be off."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a bucket fills and how much it holds.

    Attributes:
        per_minute: What flows in; at least 1.
        burst: What it holds, and thus may be taken at once; at least 1.
        interval: Seconds in which one flows in; follows from `per_minute`.
        room: Seconds that a bucket may be from full and still hold one; follows from both.
    """

    per_minute: int
    burst: int
    interval: float = field(init=False, repr=False, compare=False)
    room: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", 60.0 / self.per_minute)
        object.__setattr__(self, "room", (self.burst - 1) * self.interval + SLACK)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be taken. None is where nothing is said, and 0 is no limit.

    Attributes:
        rpm: Requests per minute.
        burst: Requests at once; a minute's worth where nothing is said.
        tpm: Tokens per minute, of prompts and answers together.
        concurrency: Requests in flight.
    """

    rpm: int | None = None
    burst: int | None = None
    tpm: int | None = None
    concurrency: int | None = None

    def over(self, base: "Allowance") -> "Allowance":
        """Return this one, with what it leaves unsaid as in another.

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
        """The bucket of requests; None without a limit."""
        return Rate(self.rpm, self.burst or self.rpm) if self.rpm else None

    @property
    def tokens(self) -> Rate | None:
        """The bucket of tokens; None without a limit."""
        return Rate(self.tpm, self.tpm) if self.tpm else None


UNSAID = Allowance()
"""Leaves everything to others."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a wish.

    Attributes:
        full_at: The bucket's state from now on.
        allowed: Whether it was granted; else nothing was taken.
        retry_after: Seconds until it would be; 0 when it was.
    """

    full_at: float
    allowed: bool
    retry_after: float = 0.0


def take(rate: Rate, full_at: float, now: float, cost: float = 1.0) -> Taken:
    """Take from a bucket, if it holds that much. What is more than `rate.burst` is never granted.

    >>> take(Rate(60, 2), FULL, now=100.0)
    Taken(full_at=101.0, allowed=True, retry_after=0.0)
    >>> take(Rate(60, 2), 102.0, now=100.0)
    Taken(full_at=102.0, allowed=False, retry_after=1.0)
    """
    wait = shortage(rate, full_at, now, cost)
    if wait:
        return Taken(full_at, allowed=False, retry_after=wait)
    return Taken(charge(rate, full_at, now, cost), allowed=True)


def shortage(rate: Rate, full_at: float, now: float, cost: float = 1.0) -> float:
    """Return the seconds until a bucket holds that much; 0 when it does, and may be asked for it."""
    missing = full_at - now if full_at > now else 0.0
    wait = missing + (cost - rate.burst) * rate.interval
    return wait if wait > SLACK else 0.0


def charge(rate: Rate, full_at: float, now: float, cost: float) -> float:
    """Take from a bucket whatever it holds, and return its state: what it lacks is a debt.

    >>> charge(Rate(60, 10), FULL, now=100.0, cost=30)
    130.0
    """
    return (max(now, full_at)) + cost * rate.interval


def changed(old: Rate | None, new: Rate | None, full_at: float, now: float) -> float:
    """Return the state of a bucket whose rate has changed: as much is missing from it as before.

    >>> changed(Rate(60, 1), Rate(600, 10), 130.0, now=100.0)
    103.0
    """
    if old is None or new is None:
        return FULL
    return now + max(0.0, full_at - now) * new.interval / old.interval


def remaining(rate: Rate, full_at: float, now: float) -> int:
    """Return how much may be taken now; 0 in debt.

    >>> remaining(Rate(60, 10), 103.5, now=100.0)
    6
    """
    lacking = full_at - now if full_at > now else 0.0
    left = int(rate.burst - lacking / rate.interval + SLACK)
    return max(0, left)


def standing_lines(kind: bytes, rate: Rate, full_at: float, now: float) -> bytes:
    """Return header lines that tell a client how a bucket stands, in the names that OpenAI's clients know.

    They say what it holds when full, what it holds now, and how long until it is full.

    >>> standing_lines(b"requests", Rate(60, 10), 101.0, now=100.0).decode().splitlines()[1:]
    ['x-ratelimit-remaining-requests: 9', 'x-ratelimit-reset-requests: 1s']
    """
    limit, left = rate.burst, remaining(rate, full_at, now)
    reset = duration(full_at - now).encode() if full_at > now else b"0s"
    return b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n" % (
        kind,
        limit,
        kind,
        left,
        kind,
        reset,
    )


def duration(seconds: float) -> str:
    """Write a time as OpenAI does.

    >>> [duration(s) for s in (0.0, 0.12, 1.0, 60.5, 3725.0)]
    ['0s', '120ms', '1s', '1m1s', '1h2m5s']
    """
    if 0 < seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
