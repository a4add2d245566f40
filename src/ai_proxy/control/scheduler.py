"""Owns the requests that wait: asks core what to do with each, and acts on the answer."""

import asyncio
from collections import deque

from ai_proxy.control.events import EventBus
from ai_proxy.control.supervisor import Supervisor
from ai_proxy.core.errors import ProxyError, ShuttingDownError, StartTimeoutError, UnknownServiceError
from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.ports import Clock
from ai_proxy.core.routing import near_names
from ai_proxy.core.scheduling import (
    Ask,
    Decision,
    Join,
    Refuse,
    Resume,
    Serve,
    ServiceFacts,
    Start,
    Wait,
    decide,
)
from ai_proxy.core.service import Lease, Outcome
from ai_proxy.platform.clock import wait_any

type Waiter = asyncio.Future[Lease]

WAIT_SLACK = 1.0
"""Seconds a request waits beyond the start's own limit, since the error of the start says more."""


class Scheduler:
    """Gives out leases; implements core.ports.Admission."""

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
        self._supervisors[supervisor.service.id] = supervisor
        self._waiting[supervisor.service.id] = deque()

    def remove(self, service_id: str) -> None:
        """Forget a service; what still waits for it is refused."""
        del self._supervisors[service_id]
        for waiter in self._waiting.pop(service_id):
            _refuse(waiter, UnknownServiceError(service_id))

    def close(self) -> None:
        """Refuse what waits, and whatever comes from now on."""
        self._closing = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                _refuse(waiter, ShuttingDownError("the proxy is shutting down"))

    def waiting(self, service_id: str) -> int:
        """Return how many requests wait for a service."""
        return len(self._waiting[service_id])

    def acquire(self, service_id: str) -> Lease | None:
        """Return a lease when the service is ready, else None."""
        supervisor = self._supervisors.get(service_id)
        if supervisor is None or supervisor.replicas is None:
            return None
        supervisor.in_flight += 1
        replicas = supervisor.replicas
        return Lease(service_id, replicas.only or replicas.take())

    async def admit(self, ask: Ask) -> Lease:
        """Wait for a lease, starting the service if need be.

        Raises:
            ProxyError: The request cannot be served.
        """
        service_id = ask.service_id
        supervisor = self._supervisors.get(service_id)
        if supervisor is None:
            raise UnknownServiceError(service_id, near_names(service_id, self._supervisors))
        if self._closing:
            raise ShuttingDownError("the proxy is shutting down", retry_after=5)
        if (lease := self.acquire(service_id)) is not None:
            return lease
        waiters = self._waiting[service_id]
        self._act(supervisor, self._decide(supervisor, arriving=True))
        waiter: Waiter = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        try:
            return await self._wait(supervisor, waiter)
        except BaseException:
            self._give_back(waiter)
            raise
        finally:
            waiters.remove(waiter)

    async def _wait(self, supervisor: Supervisor, waiter: Waiter) -> Lease:
        limit = supervisor.service.start_timeout + WAIT_SLACK
        await wait_any(self._clock, waiter, until=self._clock.now() + limit)
        if not waiter.done():
            name = supervisor.service.id
            raise StartTimeoutError(
                f"{name} did not become ready within {limit - WAIT_SLACK:g} s; it is {supervisor.state}: "
                f"{supervisor.reason}",
                retry_after=supervisor.load_time or 5,
            )
        return waiter.result()

    def _give_back(self, waiter: Waiter) -> None:
        """A lease may have been given to a request at the very moment it gave up."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self.release(waiter.result(), Outcome.CLIENT_GONE)

    def wait_reason(self, service_id: str) -> str:
        """Return why a request for the service waits now, in words; empty when it would not wait."""
        supervisor = self._supervisors.get(service_id)
        if supervisor is None:
            return ""
        decision = self._decide(supervisor, arriving=False)
        return decision.reason if isinstance(decision, Join | Wait) else ""

    def move(self, lease: Lease, outcome: Outcome, retry_after: float = 0.0) -> bool:
        """Move a lease to another replica, since its upstream failed; False when there is none to try."""
        supervisor = self._supervisors.get(lease.service_id)
        if supervisor is None or supervisor.replicas is None:
            return False
        return supervisor.replicas.move(lease, outcome, retry_after)

    def stands(self, lease: Lease) -> bool:
        """Tell whether what a lease was given for still runs: else its address may be another's by now."""
        supervisor = self._supervisors.get(lease.service_id)
        return supervisor is not None and lease.upstream in supervisor.instance.upstreams

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

    def release(self, lease: Lease, outcome: Outcome) -> None:
        """Take a lease back.

        Raises:
            RuntimeError: It was given back before.
        """
        if lease.released:
            raise RuntimeError(f"{lease} was given back twice")
        lease.released = True
        supervisor = self._supervisors.get(lease.service_id)
        if supervisor is not None:
            supervisor.lease_ended(lease, outcome)

    def _decide(self, supervisor: Supervisor, *, arriving: bool) -> Decision:
        service_id = supervisor.service.id
        facts = facts_of(supervisor, len(self._waiting[service_id]))
        return decide(service_id, facts, self._clock.now(), arriving=arriving)

    def _act(self, supervisor: Supervisor, decision: Decision) -> None:
        if isinstance(decision, Start):
            supervisor.start()
        elif isinstance(decision, Resume):
            supervisor.resume()
        elif isinstance(decision, Refuse):
            raise decision.error

    def _on_event(self, event: ServiceEvent) -> None:
        self.reconsider(event.service_id)

    def reconsider(self, service_id: str) -> None:
        """Decide anew about everything that waits for a service that has moved, or been given an order."""
        waiters = self._waiting.get(service_id)
        if not waiters:
            return
        supervisor = self._supervisors[service_id]
        decision = self._decide(supervisor, arriving=False)
        if isinstance(decision, Serve):
            self._serve(service_id, waiters)
            return
        try:
            self._act(supervisor, decision)
        except ProxyError as error:
            for waiter in waiters:
                _refuse(waiter, error)

    def _serve(self, service_id: str, waiters: deque[Waiter]) -> None:
        for waiter in waiters:
            if not waiter.done() and (lease := self.acquire(service_id)) is not None:
                waiter.set_result(lease)


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
        resumable=supervisor.resumable,
        waiting=waiting,
        max_waiting=supervisor.service.max_waiting,
        retry_at=supervisor.retry_at,
        failure=supervisor.failure.detail,
        log_tail=supervisor.failure.log_tail,
        load_time=supervisor.load_time,
        since=supervisor.since,
    )


def _refuse(waiter: Waiter, error: ProxyError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
