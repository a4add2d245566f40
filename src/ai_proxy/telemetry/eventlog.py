"""What happens to services, in the log."""

from loguru import logger

from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import Event, State


class EventLog:
    """Logs what happens to services; a failure that repeats is told once, until the service is ready."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def __call__(self, event: ServiceEvent) -> None:
        """Log an event."""
        bound = logger.bind(service=event.service_id)
        bound.log(self._level(event), "{} is {}: {}", event.service_id, event.state, event.reason)

    def _level(self, event: ServiceEvent) -> str:
        told = self._told.get(event.service_id)
        if event.state in (State.FAILING, State.FAILED):
            self._told[event.service_id] = event.reason
            return "DEBUG" if told == event.reason else "WARNING"
        if event.event is Event.ABSENT or (told and event.state in (State.STARTING, State.LOADING)):
            return "DEBUG"
        self._told.pop(event.service_id, None)
        return "INFO"
