"""The replicas of one service: who has how many requests, and who is rested."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ai_proxy.core.ports import Clock
from ai_proxy.core.replicas import Circuit, Standing, choose, judge, soonest
from ai_proxy.core.service import Lease, Outcome, Upstream

CHECKED_REST = 15.0
"""Seconds that a replica which failed a health check is rested: longer than until the next check."""


@dataclass(slots=True)
class Replica:
    """One of several interchangeable upstreams."""

    upstream: Upstream
    in_flight: int = 0
    circuit: Circuit = field(default_factory=Circuit)


class Replicas:
    """Gives each request the best replica there is.

    A service is never refused for resting replicas alone: when all rest, the one that is back first is used.

    Attributes:
        only: The upstream of a service that has just one: it can be used without asking; else None.
    """

    def __init__(self, upstreams: Sequence[Upstream], clock: Clock) -> None:
        self._clock = clock
        self._replicas = [Replica(upstream) for upstream in upstreams]
        self.only = upstreams[0] if len(upstreams) == 1 else None

    def __repr__(self) -> str:
        return f"<Replicas [{', '.join(f'{r.upstream.url}: {r.in_flight}' for r in self._replicas)}]>"

    def take(self) -> Upstream:
        """Return the upstream for a request."""
        if self.only is not None:
            return self.only
        standings = self._standings()
        index = choose(standings, self._clock.now())
        return self._use(self._replicas[soonest(standings) if index is None else index])

    def move(self, lease: Lease, outcome: Outcome, retry_after: float) -> bool:
        """Put a lease on another replica after its own failed; False when every other one rests."""
        if self.only is not None:
            return False
        self._judge(lease, outcome, retry_after)
        index = choose(self._standings(), self._clock.now())
        if index is None or self._replicas[index].upstream is lease.upstream:
            lease.judged = True
            return False
        self._leave(lease)
        lease.upstream = self._use(self._replicas[index])
        return True

    def give_back(self, lease: Lease, outcome: Outcome) -> None:
        """Take note of how the request of a lease ended."""
        if self.only is not None:
            return
        if not lease.judged:
            self._judge(lease, outcome, 0.0)
        self._leave(lease)

    def _judge(self, lease: Lease, outcome: Outcome, retry_after: float) -> None:
        for replica in self._replicas:
            if replica.upstream is lease.upstream:
                replica.circuit = judge(replica.circuit, outcome, self._clock.now(), retry_after)

    def _leave(self, lease: Lease) -> None:
        for replica in self._replicas:
            if replica.upstream is lease.upstream:
                replica.in_flight -= 1

    def check(self, upstream: Upstream, *, healthy: bool) -> None:
        """Take note of a health check: it rests a replica until the next one, or brings it back."""
        for replica in self._replicas:
            if replica.upstream is upstream and (not healthy or replica.circuit.rests_until):
                outcome = Outcome.OK if healthy else Outcome.CONNECT_FAILED
                replica.circuit = judge(replica.circuit, outcome, self._clock.now(), CHECKED_REST)

    def _use(self, replica: Replica) -> Upstream:
        replica.in_flight += 1
        if replica.circuit.rests_until:
            replica.circuit = replace(replica.circuit, tried=True)
        return replica.upstream

    def _standings(self) -> list[Standing]:
        return [Standing(replica.in_flight, replica.circuit) for replica in self._replicas]
