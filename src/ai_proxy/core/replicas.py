"""Which of several replicas a request goes to, and how long one that fails is left alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ai_proxy.core.service import Outcome

TRIP_AFTER = 3
"""Failures in a row after which a replica is rested; one is enough when it cannot be reached or is full."""
MAX_REST = 60.0
"""Longest rest, in seconds, unless the replica itself asks for more."""
MAX_ASKED_REST = 600.0
"""Longest rest, in seconds, that a replica can ask for."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """How far a replica is trusted.

    Attributes:
        failures: In a row.
        rests: How often in a row it was rested.
        rests_until: When it may be tried again, in monotonic seconds; 0 when it is trusted.
        tried: Whether a request is finding out if it has recovered.
    """

    failures: int = 0
    rests: int = 0
    rests_until: float = 0.0
    tried: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How a replica stands: how busy it is, and how far it is trusted."""

    in_flight: int
    circuit: Circuit


def judge(circuit: Circuit, outcome: Outcome, now: float, retry_after: float = 0.0) -> Circuit:
    """Return the circuit after a request.

    Args:
        circuit: Before it.
        outcome: How the request ended; a client that left says nothing about the replica.
        now: Monotonic seconds.
        retry_after: What the replica asked for, in seconds; 0 when it did not.

    >>> judge(Circuit(failures=2), Outcome.OK, now=5.0)
    Circuit(failures=0, rests=0, rests_until=0.0, tried=False)
    >>> judge(Circuit(), Outcome.CONNECT_FAILED, now=5.0)
    Circuit(failures=1, rests=1, rests_until=6.0, tried=False)
    >>> judge(Circuit(), Outcome.OVERLOADED, now=5.0, retry_after=30.0).rests_until
    35.0
    """
    if outcome is Outcome.OK:
        return Circuit()
    if outcome is Outcome.CLIENT_GONE:
        return replace(circuit, tried=False)
    failures = circuit.failures + 1
    trips = outcome in (Outcome.CONNECT_FAILED, Outcome.OVERLOADED) or failures >= TRIP_AFTER or circuit.rests
    if not trips:
        return replace(circuit, failures=failures, tried=False)
    rest = max(min(MAX_REST, 2.0 ** min(circuit.rests, 6)), min(retry_after, MAX_ASKED_REST))
    return Circuit(failures, circuit.rests + 1, max(circuit.rests_until, now + rest))


def may_use(circuit: Circuit, now: float) -> bool:
    """Tell whether a request may go there: it is trusted, or its rest is over and nobody is trying it.

    >>> may_use(Circuit(), now=5.0), may_use(Circuit(rests=1, rests_until=6.0), now=5.0)
    (True, False)
    """
    return circuit.rests_until == 0.0 or (now >= circuit.rests_until and not circuit.tried)


def choose(standings: Sequence[Standing], now: float) -> int | None:
    """Return the index of the replica to use: the least busy that may be used; None when all rest.

    >>> choose([Standing(3, Circuit()), Standing(1, Circuit()), Standing(0, Circuit(1, 1, 9.0))], now=5.0)
    1
    """
    usable = [i for i, standing in enumerate(standings) if may_use(standing.circuit, now)]
    return min(usable, key=lambda i: standings[i].in_flight, default=None)


def soonest(standings: Sequence[Standing]) -> int:
    """Return the index of the replica whose rest ends first, for when all of them rest.

    >>> soonest([Standing(0, Circuit(1, 1, 9.0)), Standing(0, Circuit(1, 1, 7.0))])
    1
    """
    return min(range(len(standings)), key=lambda i: standings[i].circuit.rests_until)
