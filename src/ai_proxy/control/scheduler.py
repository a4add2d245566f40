"""Owns the requests that wait: asks core what to do with each, and acts on the answer."""

import asyncio
from collections import deque
from dataclasses import dataclass

from ai_proxy.control.events import EventBus
from ai_proxy.control.supervisor import Supervisor
from ai_proxy.core.errors import ProxyError, ShuttingDownError, StartTimeoutError, UnknownServiceError
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import State
from ai_proxy.core.ports import Clock
from ai_proxy.core.routing import near_names
from ai_proxy.core.scheduling import (
    Ask,
    Decision,
    Join,
    Refuse,
    Serve,
    ServiceFacts,
    Start,
    Wait,
    World,
    decide,
)
from ai_proxy.core.service import Lease, Outcome
from ai_proxy.platform.clock import wait_any

WAIT_SLACK = 2.0
"""Seconds a request waits beyond the start's own limit, since the error of the start says more."""
STARTS = frozenset({State.STARTING, State.LOADING})
"""States whose duration the supervisor limits."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A request that waits, and where it takes its lease from."""

    ask: Ask
    lease: asyncio.Future[Lease]

    def refuse(self, error: ProxyError) -> None:
        """Have the request refused, unless it was served or has given up."""
        if not self.lease.done():
            self.lease.set_exception(error)


class Scheduler:
    """Gives out leases; implements core.ports.Admission.

    Args:
        clock: Returns the time.
        events: After each event of a service, everything that waits for it is decided again.
    """

    def __init__(self, clock: Clock, events: EventBus) -> None:
        self._clock = clock
        self._supervisors: dict[str, Supervisor] = {}
        self._waiting: dict[str, deque[Waiter]] = {}
        self._closing = False
        events.listen(self._on_event)

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<Scheduler [{len(self._supervisors)} services, {waiting} waiting]>"

    def add(self, supervisor: Supervisor) -> None:
        """Take on a service."""
        self._supervisors[supervisor.id] = supervisor
        self._waiting[supervisor.id] = deque()

    def remove(self, service_id: str) -> None:
        """Forget a service; what still waits for it is refused."""
        del self._supervisors[service_id]
        for waiter in self._waiting.pop(service_id):
            waiter.refuse(UnknownServiceError(service_id))

    def close(self) -> None:
        """Refuse what waits, and whatever comes from now on."""
        self._closing = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.refuse(_shutting_down())

    def waiting(self, service_id: str) -> int:
        """Return how many requests wait for a service."""
        return len(self._waiting[service_id])

    def acquire(self, service_id: str) -> Lease | None:
        """Return a lease when the service is ready, else None."""
        supervisor = self._supervisors.get(service_id)
        if supervisor is None or supervisor.serving is None:
            return None
        return supervisor.serving.lease()

    async def admit(self, ask: Ask) -> Lease:
        """Wait for a lease, starting the service if need be.

        Raises:
            ProxyError: The request cannot be served.
        """
        supervisor = self._supervisors.get(ask.service_id)
        if supervisor is None:
            raise UnknownServiceError(ask.service_id, near_names(ask.service_id, self._supervisors))
        if self._closing:
            raise _shutting_down()
        if (lease := self.acquire(ask.service_id)) is not None:
            return lease
        waiters = self._waiting[ask.service_id]
        waiter = Waiter(ask, asyncio.get_running_loop().create_future())
        if (error := self._act(supervisor, self.decide(supervisor, ask, arriving=True), waiter)) is not None:
            raise error
        waiters.append(waiter)
        try:
            return await self._wait(supervisor, waiter)
        except BaseException:
            self._give_back(waiter)
            raise
        finally:
            waiters.remove(waiter)

    async def _wait(self, supervisor: Supervisor, waiter: Waiter) -> Lease:
        """Wait for a lease: as long as a start makes progress, and `start_timeout` for everything else."""
        arrived, deadline = self._clock.now(), waiter.ask.deadline
        limit = supervisor.service.start_timeout
        while not waiter.lease.done():
            now = self._clock.now()
            until = max(arrived, supervisor.progressed) + limit + WAIT_SLACK
            if supervisor.state in STARTS:
                until = max(until, now + WAIT_SLACK)
            until = until if deadline is None else min(until, deadline)
            if now >= until:
                raise StartTimeoutError(
                    f"{supervisor.id} did not become ready within {now - arrived:.0f} s; it is "
                    f"{supervisor.state}: {supervisor.reason}",
                    retry_after=supervisor.load_time or 5,
                )
            await wait_any(self._clock, waiter.lease, until=until)
        return waiter.lease.result()

    def _give_back(self, waiter: Waiter) -> None:
        """A lease may have been given to a request at the very moment it gave up."""
        lease = waiter.lease
        if lease.done() and not lease.cancelled() and lease.exception() is None:
            self.release(lease.result(), Outcome.CLIENT_GONE)

    def wait_reason(self, service_id: str) -> str:
        """Return why a request for the service waits now, in words; empty when it would not wait."""
        supervisor = self._supervisors.get(service_id)
        if supervisor is None:
            return ""
        decision = self.decide(supervisor, Ask(service_id))
        return decision.reason if isinstance(decision, Join | Wait) else ""

    def move(self, lease: Lease, outcome: Outcome, retry_after: float = 0.0) -> bool:
        """Move a lease to another replica, since its upstream failed; False when there is none to try."""
        return lease.holder.move(lease, outcome, retry_after)

    def stands(self, lease: Lease) -> bool:
        """Return whether the instance of a lease still runs: else its address may be another's by now."""
        return lease.holder.stands(lease)

    def release(self, lease: Lease, outcome: Outcome) -> None:
        """Take a lease back.

        Raises:
            RuntimeError: It was given back before.
        """
        if lease.released:
            raise RuntimeError(f"{lease} was given back twice")
        lease.released = True
        lease.holder.release(lease, outcome)

    def unload(self, service_id: str) -> None:
        """Have a service stopped after its requests in flight; the next request may start it again."""
        supervisor = self._supervisors.get(service_id)
        if supervisor is not None:
            supervisor.unload()
            self.reconsider(service_id)

    def load_time(self, service_id: str) -> float | None:
        """Return the seconds that a start takes, as learned from the last one; None before."""
        supervisor = self._supervisors.get(service_id)
        return supervisor.load_time if supervisor is not None else None

    def decide(self, supervisor: Supervisor, ask: Ask, *, arriving: bool = False) -> Decision:
        """Return what is to be done about an ask now."""
        waiting = len(self._waiting.get(ask.service_id, ()))
        world = World(self._clock.now(), facts_of(supervisor, waiting))
        return decide(ask, world, arriving=arriving)

    def _act(self, supervisor: Supervisor, decision: Decision, waiter: Waiter) -> ProxyError | None:
        """Do what was decided about a request; return why it is refused, if it is."""
        match decision:
            case Serve():
                lease = self.acquire(supervisor.id)
                if lease is not None and not waiter.lease.done():
                    waiter.lease.set_result(lease)
            case Start():
                supervisor.start(waiter.ask)
            case Refuse(error):
                return error
        return None

    def _on_event(self, event: ServiceEvent) -> None:
        self.reconsider(event.service_id)

    def reconsider(self, service_id: str) -> None:
        """Decide again about everything that waits for a service that has moved, or that is to end."""
        supervisor = self._supervisors.get(service_id)
        for waiter in tuple(self._waiting.get(service_id, ())):
            if supervisor is None or waiter.lease.done():
                continue
            if (error := self._act(supervisor, self.decide(supervisor, waiter.ask), waiter)) is not None:
                waiter.refuse(error)


def facts_of(supervisor: Supervisor, waiting: int) -> ServiceFacts:
    """Return what is decided on.

    Args:
        supervisor: Of the service.
        waiting: Requests that wait for it.
    """
    return ServiceFacts(
        state=supervisor.state,
        start=supervisor.service.start,
        held=supervisor.held,
        owned=supervisor.is_owned,
        waiting=waiting,
        max_waiting=supervisor.service.max_waiting,
        retry_at=supervisor.retry_at,
        failure=supervisor.failure.detail,
        log_tail=supervisor.failure.log_tail,
        progress=supervisor.progress,
        load_time=supervisor.load_time,
        since=supervisor.since,
    )


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("the proxy is shutting down", retry_after=5)
