"""The replicas of one running instance: how many requests each has, and its circuit breaker."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ai_proxy.core.ports import Clock
from ai_proxy.core.replicas import Circuit, ReplicaStatus, choose, classify, soonest
from ai_proxy.core.service import Lease, Outcome, Upstream

CHECKED_OPEN = 15.0
"""Seconds that a failed health check opens a circuit: longer than until the next check."""


@dataclass(slots=True)
class Replica:
    """One of several interchangeable upstreams."""

    upstream: Upstream
    in_flight: int = 0
    circuit: Circuit = field(default_factory=Circuit)


class Replicas:
    """Gives each request the best replica there is.

    Open circuits alone never refuse a request: when all are open, the one that is half-open first is used.
    A single replica is used without a circuit breaker.
    """

    def __init__(self, upstreams: Sequence[Upstream], clock: Clock) -> None:
        self._clock = clock
        self._replicas = [Replica(upstream) for upstream in upstreams]

    def __repr__(self) -> str:
        return f"<Replicas [{', '.join(f'{r.upstream.url}: {r.in_flight}' for r in self._replicas)}]>"

    def change(self, upstreams: Sequence[Upstream]) -> None:
        """Replace the upstreams; those that stay keep their requests and their circuit."""
        known = {replica.upstream: replica for replica in self._replicas}
        self._replicas = [known.get(upstream) or Replica(upstream) for upstream in upstreams]

    def take(self) -> Upstream:
        """Return the upstream for a request."""
        if len(self._replicas) == 1:
            replica = self._replicas[0]
            replica.in_flight += 1
            return replica.upstream
        statuses = self._statuses()
        index = choose(statuses, self._clock.now())
        return self._use(self._replicas[soonest(statuses) if index is None else index])

    def move(self, lease: Lease, outcome: Outcome, retry_after: float) -> bool:
        """Put a lease on another replica after its own failed; False when no other may be used."""
        if len(self._replicas) == 1:
            return False
        self._classify(lease, outcome, retry_after)
        index = choose(self._statuses(), self._clock.now())
        if index is None or self._replicas[index].upstream is lease.upstream:
            lease.classified = True
            return False
        self._leave(lease)
        lease.upstream = self._use(self._replicas[index])
        return True

    def give_back(self, lease: Lease, outcome: Outcome) -> None:
        """Count how the request of a lease ended."""
        replicas = self._replicas
        if len(replicas) == 1 and replicas[0].upstream is lease.upstream:
            replicas[0].in_flight -= 1
            return
        if len(replicas) > 1 and not lease.classified:
            self._classify(lease, outcome, 0.0)
        self._leave(lease)

    def check(self, upstream: Upstream, *, healthy: bool) -> None:
        """Count a health check: it opens a circuit until the next check, or closes it."""
        for replica in self._replicas:
            if replica.upstream is upstream and (not healthy or replica.circuit.open_until):
                outcome = Outcome.OK if healthy else Outcome.CONNECT_FAILED
                replica.circuit = classify(replica.circuit, outcome, self._clock.now(), CHECKED_OPEN)

    def _classify(self, lease: Lease, outcome: Outcome, retry_after: float) -> None:
        for replica in self._replicas:
            if replica.upstream is lease.upstream:
                replica.circuit = classify(replica.circuit, outcome, self._clock.now(), retry_after)

    def _leave(self, lease: Lease) -> None:
        for replica in self._replicas:
            if replica.upstream is lease.upstream:
                replica.in_flight -= 1
                return

    def _use(self, replica: Replica) -> Upstream:
        replica.in_flight += 1
        if replica.circuit.open_until:
            replica.circuit = replace(replica.circuit, trial=True)
        return replica.upstream

    def _statuses(self) -> list[ReplicaStatus]:
        return [ReplicaStatus(replica.in_flight, replica.circuit) for replica in self._replicas]
