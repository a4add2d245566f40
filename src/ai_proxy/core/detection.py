"""Results of engine detection."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from ai_proxy.core.errors import RequestError

type SocketAddress = tuple[str, int]
"""Host and port that a program listens on. Every loopback name and address is written `127.0.0.1`."""


def socket_address(host: str, port: int) -> SocketAddress:
    """Return the socket address of a host and a port.

    >>> {socket_address(host, 80) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0")}
    {('127.0.0.1', 80)}
    >>> socket_address("GPU-box", 80)
    ('gpu-box', 80)
    """
    return ("127.0.0.1" if is_loopback(host) else host.lower(), port)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine; wildcard addresses are, since they are reachable from it.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::", "0.0.0.0", "10.0.0.1", "127.example")]
    [True, True, True, True, False, False]
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return address.is_loopback or address.is_unspecified


class EngineState(StrEnum):
    """State of an engine; the values are shown to users and scripts."""

    ABSENT = "Absent"
    """Neither its program nor a listener was found."""
    INSTALLED_ONLY = "InstalledOnly"
    """Its program is installed, but nothing listens on its port."""
    RUNNING_HEALTHY = "RunningHealthy"
    RUNNING_DEGRADED = "RunningDegraded"
    """It responds slowly, or with 429 or 503: it is busy or loading."""
    ERROR_NETWORK = "ErrorNetwork"
    """Its address cannot be reached, although something listens there or should."""
    ERROR_API = "ErrorApi"
    """Something else, or a misconfigured engine, responds on its port."""


RUNNING = frozenset({EngineState.RUNNING_HEALTHY, EngineState.RUNNING_DEGRADED})
"""States in which the engine itself responds."""


@dataclass(frozen=True, slots=True)
class Detection:
    """Result of detecting one engine.

    Attributes:
        engine: Name of the engine, as services declare it.
        title: Display name.
        state: Its state.
        address: URL that was probed.
        detail: Reason for the state.
        version: Version it reports; None when it reports none.
        models: Models it lists.
        latency_ms: Slowest of its responses to the probe, in milliseconds; None without a response.
        program: Path of its program; None when it was not found.
        at: Time of the probe, in seconds since the epoch.
    """

    engine: str
    title: str
    state: EngineState
    address: str
    detail: str
    version: str | None
    models: tuple[str, ...]
    latency_ms: float | None
    program: str | None
    at: float


class UnknownEngineError(RequestError):
    """The proxy does not detect an engine of that name."""

    code, status, title = "unknown_engine", 404, "Unknown engine"

    def __init__(self, engine: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no engine {engine[:100]!r}; use one of {', '.join(known)}")
