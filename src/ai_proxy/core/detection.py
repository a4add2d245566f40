"""What is known of the engines that run by themselves on a machine."""

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
    """Tell whether a host is this machine; the wildcard addresses are reached there as well.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::", "0.0.0.0", "10.0.0.1", "127.example")]
    [True, True, True, True, False, False]
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return address.is_loopback or address.is_unspecified


class EngineState(StrEnum):
    """How an engine stands; the values are what people and scripts see."""

    ABSENT = "Absent"
    """Nothing of it is here. It has a name of its own so that every engine has its line in every answer."""
    INSTALLED_ONLY = "InstalledOnly"
    """Its program is here, and nothing listens where it would."""
    RUNNING_HEALTHY = "RunningHealthy"
    RUNNING_DEGRADED = "RunningDegraded"
    """It answers slowly, or with 429 or 503: it is busy or loads."""
    ERROR_NETWORK = "ErrorNetwork"
    """It cannot be talked to, though something listens there or should."""
    ERROR_API = "ErrorApi"
    """What answers there does not answer as the engine does."""


RUNNING = frozenset({EngineState.RUNNING_HEALTHY, EngineState.RUNNING_DEGRADED})
"""States in which it is the engine that answers."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found out about one engine.

    Attributes:
        engine: The engine, as services declare it.
        title: Its name for people.
        state: How it stands.
        address: Where it was looked for, as a URL.
        detail: Why it stands so, in words.
        version: As it tells; None when it does not.
        models: As it lists them.
        latency_ms: The slowest of its answers about itself, in milliseconds; None when it gave none.
        program: Where it is installed; None when it was not found.
        at: When it was looked at, in seconds since the epoch.
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
    """No engine of that name is looked for."""

    code, status, title = "unknown_engine", 404, "Unknown engine"

    def __init__(self, engine: str, known: Sequence[str]) -> None:
        super().__init__(f"no engine {engine[:100]!r} is looked for; there are {', '.join(known)}")
