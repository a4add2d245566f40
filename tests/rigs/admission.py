"""A control plane for tests of the data plane: every service is ready, or as the test says."""

import asyncio
from collections.abc import Mapping

from ai_proxy.core.errors import ProxyError
from ai_proxy.core.scheduling import Ask
from ai_proxy.core.service import Lease, Outcome, Upstream


class FakeAdmission:
    """Hands out leases on fixed upstreams and counts them.

    Attributes:
        in_flight: Leases held, per service.
        outcomes: Every outcome, in order.
        held: Services whose requests wait until `open` is called.
        refusals: Services whose requests are refused, and with what.
        spares: Upstreams that a request may move to when its own fails.
        moves: Every such move: how the upstream failed, and what it asked for.
        unloaded: Services that were to be stopped.
        load_times: Seconds that a start of each service takes.
        asks: Every request for a lease that had to be admitted, in order.
        reasons: Why requests for each service wait, in words.
        standing: Whether what leases were given for still runs.
    """

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self.upstreams = dict(upstreams)
        self.in_flight = dict.fromkeys(upstreams, 0)
        self.outcomes: list[tuple[str, Outcome]] = []
        self.held: dict[str, asyncio.Event] = {}
        self.refusals: dict[str, ProxyError] = {}
        self.spares: dict[str, list[Upstream]] = {}
        self.moves: list[tuple[Outcome, float]] = []
        self.standing = True
        self.unloaded: list[str] = []
        self.load_times: dict[str, float] = {}
        self.asks: list[Ask] = []
        self.reasons: dict[str, str] = {}
        self.waiting = 0
        self._changed = asyncio.Event()

    def hold(self, service_id: str) -> None:
        """Let requests for a service wait."""
        self.held[service_id] = asyncio.Event()

    def open(self, service_id: str) -> None:
        """Let them go on."""
        self.held.pop(service_id).set()

    def refuse(self, service_id: str, error: ProxyError) -> None:
        """Refuse requests for a service from now on, also those that wait."""
        self.refusals[service_id] = error
        if service_id in self.held:
            self.open(service_id)

    async def wait_for_waiting(self, count: int) -> None:
        """Return when that many requests wait."""
        while self.waiting != count:
            self._changed.clear()
            await self._changed.wait()

    async def wait_for_release(self, count: int = 1) -> list[tuple[str, Outcome]]:
        """Return the outcomes when there are that many."""
        while len(self.outcomes) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.outcomes

    def acquire(self, service_id: str) -> Lease | None:
        """Return a lease, unless the test holds or refuses the service."""
        if service_id in self.held or service_id in self.refusals:
            return None
        self.in_flight[service_id] += 1
        return Lease(service_id, self.upstreams[service_id], self)

    async def admit(self, ask: Ask) -> Lease:
        """Wait as long as the test says."""
        self.asks.append(ask)
        service_id = ask.service_id
        if service_id in self.refusals:
            raise self.refusals[service_id]
        self.waiting += 1
        self._changed.set()
        try:
            await self.held[service_id].wait()
        finally:
            self.waiting -= 1
            self._changed.set()
        if service_id in self.refusals:
            raise self.refusals[service_id]
        self.in_flight[service_id] += 1
        return Lease(service_id, self.upstreams[service_id], self)

    def wait_reason(self, service_id: str) -> str:
        """Return what a test says."""
        return self.reasons.get(service_id, "")

    def move(self, lease: Lease, outcome: Outcome, retry_after: float = 0.0) -> bool:
        """Move a lease to the next of the spare upstreams that the test gave the service."""
        spare = self.spares.get(lease.service_id)
        if not spare:
            return False
        self.moves.append((outcome, retry_after))
        lease.upstream = spare.pop(0)
        return True

    def stands(self, lease: Lease) -> bool:
        """Tell whether what a lease was given for still runs."""
        return self.standing

    def release(self, lease: Lease, outcome: Outcome) -> None:
        """Count a lease back in."""
        assert not lease.released, f"{lease} was given back twice"
        lease.released = True
        self.in_flight[lease.service_id] -= 1
        self.outcomes.append((lease.service_id, outcome))
        self._changed.set()

    def load_time(self, service_id: str) -> float | None:
        """Return what a test says."""
        return self.load_times.get(service_id)

    def unload(self, service_id: str) -> None:
        """Remember that."""
        self.unloaded.append(service_id)
