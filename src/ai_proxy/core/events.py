"""What happened, as facts for people and machines."""

from dataclasses import dataclass

from ai_proxy.core.lifecycle import Event, State


@dataclass(frozen=True, slots=True)
class ServiceEvent:
    """A service moved from one state to another.

    Attributes:
        seq: Counts events from 1.
        at: Seconds since the epoch.
        service_id: The service.
        event: What moved it.
        state: Its state now.
        reason: Why it moved, in words.
    """

    seq: int
    at: float
    service_id: str
    event: Event
    state: State
    reason: str
