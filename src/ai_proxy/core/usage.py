"""Facts about one model request, for metrics, traces, usage by key and recent requests."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

UNKNOWN = -1


class RequestRecord(NamedTuple):
    """One finished request to a model; times are in seconds.

    A named tuple, because one is made for every request: a frozen dataclass takes six times as long to make.

    Attributes:
        request_id: As in `X-Request-ID`.
        key_id: The API key that authenticated it; empty without one.
        endpoint: The requested path, as in `core.abilities.Endpoint` or Ollama's.
        model: The requested name; empty without one.
        service_id: The service that answered; empty when none did.
        engine: The engine of that service; empty when none answered.
        streamed: Whether the client asked for a stream.
        status: HTTP status sent; 499 when the client left first, 599 when the response broke off.
        error: Code of the proxy's own error; empty without one.
        started: When the request's head was complete, in seconds since the epoch.
        seconds: From then to the end of the response.
        waited: From then until the request had a lease: queueing and loading.
        first_byte: From the start to the first byte of the response; negative without one.
        first_token: From the start to the first byte of the response's body; negative without one.
        tokens_in: Tokens of the prompt; UNKNOWN when the engine does not report them.
        tokens_out: Tokens of the answer; UNKNOWN when the engine does not report them.
        received: Body bytes from the client.
        sent: Body bytes to the client.
        traceparent: Sent to the backend: the proxy's own, else the client's; empty without one.
        parent: The client's traceparent, as received; empty without one.
    """

    request_id: str
    key_id: str
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
    first_byte: float
    first_token: float
    tokens_in: int
    tokens_out: int
    received: int
    sent: int
    traceparent: str
    parent: str

    @property
    def loaded(self) -> bool:
        """Whether the request waited for a start."""
        return self.waited > 0

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of a stream from its first token on; None when it is not known."""
        seconds = self.seconds - self.first_token
        measurable = self.streamed and self.first_token >= 0 and self.tokens_out > 1 and seconds > 0
        return (self.tokens_out - 1) / seconds if measurable else None


class Progress(StrEnum):
    """What an unfinished request is waiting for, or doing."""

    READING = "reading"
    WAITING = "waiting"
    FORWARDING = "forwarding"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """One unfinished request to a model.

    Attributes:
        request_id: As in `X-Request-ID`.
        endpoint: The requested path, without its query.
        model: The requested name; empty until it is known.
        service_id: The service that answers; empty until it is known.
        state: Reading its body, waiting for a service, forwarded to the backend, or streaming the response.
        started: When the request's head was complete, in seconds since the epoch.
        seconds: Since then.
        sent: Body bytes sent to the client so far.
    """

    request_id: str
    endpoint: str
    model: str
    service_id: str
    state: Progress
    started: float
    seconds: float
    sent: int
