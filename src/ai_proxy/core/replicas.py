"""Which of several replicas a request goes to: the least busy one whose circuit breaker lets it through."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ai_proxy.core.service import Outcome

OPEN_AFTER = 3
"""Failures in a row that open a circuit; one is enough when the replica cannot be reached or is full."""
MAX_OPEN = 60.0
"""Longest time, in seconds, that a circuit is open, unless the replica itself asks for more."""
MAX_RETRY_AFTER = 600.0
"""Longest time, in seconds, that a replica can ask for with Retry-After."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """The circuit breaker of a replica: closed, open, or half-open once `open_until` has passed.

    Attributes:
        failures: In a row.
        openings: How often in a row it was opened.
        open_until: When it becomes half-open, in monotonic seconds; 0 when it is closed.
        trial: Whether a request is under way that tries whether the replica has recovered.
    """

    failures: int = 0
    openings: int = 0
    open_until: float = 0.0
    trial: bool = False

    def lets_through(self, now: float) -> bool:
        """Return whether a request may go there: closed, or half-open without a trial under way.

        >>> Circuit().lets_through(now=5.0), Circuit(openings=1, open_until=6.0).lets_through(now=5.0)
        (True, False)
        """
        return self.open_until == 0.0 or (now >= self.open_until and not self.trial)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """How busy a replica is, and its circuit breaker."""

    in_flight: int
    circuit: Circuit


def classify(circuit: Circuit, outcome: Outcome, now: float, retry_after: float = 0.0) -> Circuit:
    """Return the circuit after a request.

    Args:
        circuit: Before it.
        outcome: How the request ended; a client that left says nothing about the replica.
        now: Monotonic seconds.
        retry_after: What the replica asked for, in seconds; 0 when it did not.

    >>> classify(Circuit(failures=2), Outcome.OK, now=5.0)
    Circuit(failures=0, openings=0, open_until=0.0, trial=False)
    >>> classify(Circuit(), Outcome.CONNECT_FAILED, now=5.0)
    Circuit(failures=1, openings=1, open_until=6.0, trial=False)
    >>> classify(Circuit(), Outcome.OVERLOADED, now=5.0, retry_after=30.0).open_until
    35.0
    """
    if outcome is Outcome.OK:
        return Circuit()
    if outcome is Outcome.CLIENT_GONE:
        return replace(circuit, trial=False)
    failures = circuit.failures + 1
    at_once = outcome in (Outcome.CONNECT_FAILED, Outcome.OVERLOADED)
    if not (at_once or failures >= OPEN_AFTER or circuit.openings):
        return replace(circuit, failures=failures, trial=False)
    seconds = max(min(MAX_OPEN, 2.0 ** min(circuit.openings, 6)), min(retry_after, MAX_RETRY_AFTER))
    return Circuit(failures, circuit.openings + 1, max(circuit.open_until, now + seconds))


def choose(statuses: Sequence[ReplicaStatus], now: float) -> int | None:
    """Return the index of the least busy replica that may be used; None when every circuit is open.

    >>> closed, opened = Circuit(), Circuit(1, 1, 9.0)
    >>> choose([ReplicaStatus(3, closed), ReplicaStatus(1, closed), ReplicaStatus(0, opened)], now=5.0)
    1
    """
    usable = [i for i, status in enumerate(statuses) if status.circuit.lets_through(now)]
    return min(usable, key=lambda i: statuses[i].in_flight, default=None)


def soonest(statuses: Sequence[ReplicaStatus]) -> int:
    """Return the index of the replica whose circuit becomes half-open first.

    >>> soonest([ReplicaStatus(0, Circuit(1, 1, 9.0)), ReplicaStatus(0, Circuit(1, 1, 7.0))])
    1
    """
    return min(range(len(statuses)), key=lambda i: statuses[i].circuit.open_until)
