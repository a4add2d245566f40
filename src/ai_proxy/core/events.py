"""Events of services."""

from dataclasses import dataclass

from ai_proxy.core.lifecycle import Event, State


@dataclass(frozen=True, slots=True)
class ServiceEvent:
    """A transition of a service from one state to another.

    Attributes:
        seq: Counts events from 1.
        at: Seconds since the epoch.
        service_id: The service.
        event: The event that caused it.
        state: The new state.
        reason: Why it happened, as text.
    """

    seq: int
    at: float
    service_id: str
    event: Event
    state: State
    reason: str
