"""What one request to a model took: the facts that metrics, traces and the list of requests are made of."""

from dataclasses import dataclass
from enum import StrEnum

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
    parent: str = ""
    first_byte: float = -1.0
    received: int = 0
    sent: int = 0

    @property
    def tokens_per_second(self) -> float | None:
        """How fast a stream came, from its first token on; None where that cannot be told.

        >>> Inference("r", "/v1/chat/completions", "m", "s", "vllm", True, 200, "", 0.0, 3.0, 0.5, 1.0, 9, 21,
        ...           False, "").tokens_per_second
        10.0
        """
        duration = self.seconds - self.first_token
        if not self.streamed or self.tokens_out < 2 or self.first_token < 0 or duration <= 0:
            return None
        return (self.tokens_out - 1) / duration


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
