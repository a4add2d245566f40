"""Decides when to renew a certificate. Times are in seconds since the epoch."""

from collections.abc import Iterable
from dataclasses import dataclass

from ai_proxy.tls.certificates import Certificate

FIRST_PAUSE = 60.0
PAUSE_GROWTH = 4
LONGEST_PAUSE = 12 * 3600.0
LIMITED_PAUSE = 3600.0
"""Shortest pause after an authority refused because of its rate limits."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts in a row that failed.

    Attributes:
        count: Number of attempts.
        again: Time of the next attempt.
        reason: Why the last one failed.
    """

    count: int = 0
    again: float = 0.0
    reason: str = ""


def renewal_time(certificate: Certificate) -> float:
    """Return when to renew a certificate: when a third of its validity is left.

    >>> renewal_time(Certificate(frozenset(), starts=0.0, ends=90.0, issuer="", serial=""))
    60.0
    """
    return certificate.ends - (certificate.ends - certificate.starts) / 3


def renewal_pause(
    certificate: Certificate | None, names: Iterable[str], now: float, failures: Failures = Failures()
) -> float:
    """Return the seconds until a new certificate is due; 0 when it is due now.

    Args:
        certificate: The current one; None without one.
        names: That it must contain.
        now: Seconds since the epoch.
        failures: Attempts since the last success.
    """
    fits = certificate is not None and certificate.names.issuperset(names)
    due = renewal_time(certificate) if certificate is not None and fits else 0.0
    # A clock that was set back does not prolong the pause.
    rest = min(failures.again - now, LONGEST_PAUSE)
    return max(0.0, due - now, rest)


def after_failure(before: Failures, now: float, reason: str, *, limited: bool = False) -> Failures:
    """Return the failures after one more; the pauses respect the rate limits of public authorities.

    Let's Encrypt allows five failures per hour and name: these pauses make four at most.

    >>> failures, pauses = Failures(), []
    >>> for _ in range(6):
    ...     failures = after_failure(failures, 0.0, "refused")
    ...     pauses.append(failures.again)
    >>> pauses
    [60.0, 240.0, 960.0, 3840.0, 15360.0, 43200.0]
    """
    pause = min(FIRST_PAUSE * PAUSE_GROWTH ** min(before.count, 10), LONGEST_PAUSE)
    return Failures(before.count + 1, now + max(pause, LIMITED_PAUSE if limited else 0.0), reason)
