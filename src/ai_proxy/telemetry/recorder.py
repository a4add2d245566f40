"""For those who do not measure."""

from ai_proxy.core.usage import RequestRecord


class NullRecorder:
    """A `core.ports.Recorder` that forgets everything it is told."""

    def exchange(
        self, service_id: str, status: int, seconds: float, first_byte: float, received: int, sent: int
    ) -> None:
        """Do nothing."""

    def finished(self, record: RequestRecord) -> None:
        """Do nothing."""

    def settle(self) -> None:
        """Do nothing."""

    def state(self, service_id: str, state: str) -> None:
        """Do nothing."""

    def started(self, service_id: str, seconds: float) -> None:
        """Do nothing."""

    def forget(self, service_id: str) -> None:
        """Do nothing."""
