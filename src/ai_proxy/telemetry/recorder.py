"""Who is told of measurements."""

from collections.abc import Callable

from ai_proxy.core.usage import Inference
from ai_proxy.telemetry.tally import Tallies


class NullRecorder:
    """A `core.ports.Recorder` that forgets everything it is told."""

    def exchange(
        self, service_id: str, status: int, seconds: float, first_byte: float, received: int, sent: int
    ) -> None:
        """Do nothing."""

    def inference(self, inference: Inference) -> None:
        """Do nothing."""

    def state(self, service_id: str, state: str) -> None:
        """Do nothing."""

    def started(self, service_id: str, seconds: float) -> None:
        """Do nothing."""

    def forget(self, service_id: str) -> None:
        """Do nothing."""


class TellingRecorder:
    """A `core.ports.Recorder` that counts everything, and tells others of requests to models."""

    def __init__(self, tallies: Tallies, *listeners: Callable[[Inference], None]) -> None:
        self._listeners = (tallies.inference, *listeners)
        # Straight to the tallies: nobody else is told, and a call in between is a call on every request.
        self.exchange = tallies.exchange
        self.state = tallies.state
        self.started = tallies.started
        self.forget = tallies.forget

    def inference(self, inference: Inference) -> None:
        """Tell everybody of a finished request to a model."""
        for tell in self._listeners:
            tell(inference)
