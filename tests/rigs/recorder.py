"""A recorder that remembers, for tests."""

import asyncio
from dataclasses import dataclass

from ai_proxy.core.usage import RequestRecord


@dataclass(frozen=True, slots=True)
class RecordedExchange:
    """What was measured of an exchange; see `core.ports.Recorder`."""

    service_id: str
    status: int
    seconds: float
    first_byte: float
    received: int
    sent: int


class CollectingRecorder:
    """Keeps all that it is told.

    Attributes:
        exchanges: In the order of their end.
        inferences: Likewise.
        states: Service and state, in order.
        starts: Service and seconds, in order.
        forgotten: Services.
    """

    def __init__(self) -> None:
        self.exchanges: list[RecordedExchange] = []
        self.inferences: list[RequestRecord] = []
        self.states: list[tuple[str, str]] = []
        self.starts: list[tuple[str, float]] = []
        self.forgotten: list[str] = []
        self._recorded = asyncio.Event()

    def exchange(
        self, service_id: str, status: int, seconds: float, first_byte: float, received: int, sent: int
    ) -> None:
        """Keep an exchange."""
        self.exchanges.append(RecordedExchange(service_id, status, seconds, first_byte, received, sent))
        self._recorded.set()

    def finished(self, record: RequestRecord) -> None:
        """Keep a request to a model, and its exchange."""
        self.inferences.append(record)
        self.exchange(
            record.service_id,
            record.status,
            record.seconds,
            record.first_byte,
            record.received,
            record.sent,
        )

    def settle(self) -> None:
        """Do nothing: all is kept at once."""

    def state(self, service_id: str, state: str) -> None:
        """Keep a state."""
        self.states.append((service_id, state))

    def started(self, service_id: str, seconds: float) -> None:
        """Keep a start."""
        self.starts.append((service_id, seconds))

    def forget(self, service_id: str) -> None:
        """Keep that, too."""
        self.forgotten.append(service_id)

    async def recorded(self, count: int = 1) -> list[RecordedExchange]:
        """Wait until that many exchanges have ended."""
        while len(self.exchanges) < count:
            self._recorded.clear()
            await self._recorded.wait()
        return self.exchanges


class NullRecorder:
    """Forgets everything."""

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
