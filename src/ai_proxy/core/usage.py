"""What one request to a model took: the facts that metrics, traces and the list of requests are made of."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

UNKNOWN = -1


@dataclass(slots=True)
class Inference:
    """One request to a model, when it is over. Times are in seconds.

    Attributes:
        request_id: As in `X-Request-ID`.
        endpoint: The path that was asked, as in `core.abilities.Endpoint` or Ollama's.
        model: As the client named it; empty when it named none.
        service_id: Who answered; empty when nobody was found.
        engine: The software that answered; empty likewise.
        streamed: Whether the answer was asked for as a stream.
        status: HTTP status sent; 499 when the client left first, 599 when the response broke off.
        error: Code of the proxy's own error; empty for none.
        started: When its head had come, since the epoch.
        seconds: From then to the end of the response.
        waited: Of that, until there was a lease: queue and load.
        first_token: From the start to the first byte of the response's body; negative for none.
        tokens_in: Of the prompt; UNKNOWN where that cannot be told.
        tokens_out: Of the answer; UNKNOWN likewise.
        loaded: Whether the request waited for a start.
        traceparent: That was passed on: one made for this request, else the client's own; empty for none.
        parent: The client's own traceparent, as sent; empty for none.
        first_byte: From the start to the first byte of the response's head; negative for none.
        received: Body bytes from the client.
        sent: Body bytes to the client.
    """

    request_id: str
    endpoint: str
    model: str
    service_id: str
    engine: str
    streamed: bool
    status: int
    error: str
    started: float
    seconds: float
    waited: float
    first_token: float
    tokens_in: int
    tokens_out: int
    loaded: bool
    traceparent: str
    parent: str
    first_byte: float
    received: int
    sent: int

    @property
    def tokens_per_second(self) -> float | None:
        """How fast a stream came, from its first token on; None where that cannot be told."""
        return speed(self.seconds, self.first_token, self.tokens_out) if self.streamed else None


def speed(seconds: float, first_token: float, tokens_out: int) -> float | None:
    """Return how fast a stream came, in tokens per second from the first; None where that cannot be told.

    Args:
        seconds: That it took in all.
        first_token: When that came; negative for never.
        tokens_out: How many there were; UNKNOWN where that cannot be told.

    >>> speed(3.0, 1.0, 21)
    10.0
    """
    duration = seconds - first_token
    return (tokens_out - 1) / duration if tokens_out > 1 and first_token >= 0 and duration > 0 else None


class Finished(Protocol):
    """A request to a model that is over: what is counted of each; see `Inference`.

    Attributes:
        key_id: The API key that it came with; empty for none.
    """

    key_id: str
    model: str
    service_id: str
    status: int
    streaming: bool
    seconds: float
    waited: float
    first_token: float
    first_byte: float
    received: int
    sent: int

    def tokens(self) -> tuple[int, int]:
        """Return the tokens of the prompt and of the answer; UNKNOWN for what cannot be told."""

    def account(self) -> Inference:
        """Return all that is known, for those who want to look at this very request."""


class Progress(StrEnum):
    """How far a request has come."""

    READING = "reading"
    WAITING = "waiting"
    FORWARDING = "forwarding"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """One request that is not over.

    Attributes:
        request_id: As in `X-Request-ID`.
        endpoint: The path that was asked, without its query.
        model: As the client named it; empty when it named none, or has not yet.
        service_id: Who answers; empty while that is not known.
        state: How far it has come: its body is read, it waits for a service, the backend has it, it answers.
        started: When its head had come, in seconds since the epoch.
        seconds: Since then.
        sent: Body bytes to the client so far.
    """

    request_id: str
    endpoint: str
    model: str
    service_id: str
    state: Progress
    started: float
    seconds: float
    sent: int
