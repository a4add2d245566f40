"""Decides what is exported where, from the `telemetry:` section and the standard `OTEL_*` variables.

A variable takes precedence over the section. The SDK itself reads endpoints, headers, timeouts, certificates,
compression, batch sizes and resource attributes from variables. This module reads those that its public
interface leaves to the program: which signals, by which protocol, how often, and which traces.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from ai_proxy.core.settings import TelemetrySettings
from ai_proxy.telemetry.otel.traceparent import Sampling

DEFAULT_INTERVAL = 60.0
"""Seconds between two exports of metrics."""


class Signal(StrEnum):
    """A kind of telemetry, as named in variables and paths."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class Protocol(StrEnum):
    """Transport of OTLP."""

    GRPC = "grpc"
    HTTP = "http/protobuf"


@dataclass(frozen=True, slots=True)
class Target:
    """Destination of one signal.

    Attributes:
        protocol: Transport.
        endpoint: URL of the collector; None to let the SDK read it from a variable.
        headers: Sent with every export; None to let the SDK read them from a variable.
    """

    protocol: Protocol
    endpoint: str | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to export where; nothing when there are no targets.

    Attributes:
        targets: By signal, for those that are exported.
        sampling: Which traces are kept.
        service_name: Name of the proxy; None to let the SDK read it from a variable.
        interval: Seconds between two exports of metrics.
        complaints: Messages about variables that are invalid, and so ignored.
    """

    targets: Mapping[Signal, Target] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    service_name: str | None = None
    interval: float = DEFAULT_INTERVAL
    complaints: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: TelemetrySettings, environ: Mapping[str, str]) -> Self:
        """Decide what to export where.

        >>> Plan.of(TelemetrySettings(), {}).targets
        {}
        >>> plan = Plan.of(TelemetrySettings(), {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://otel:4317"})
        >>> plan.targets
        {<Signal.TRACES: 'traces'>: Target(protocol=<Protocol.GRPC: 'grpc'>, endpoint=None)}
        """
        variables = _Variables(environ)
        if variables.get("OTEL_SDK_DISABLED").lower() == "true":
            return cls()
        targets = {
            signal: target
            for signal in Signal
            if (target := _target(signal, settings, variables)) is not None
        }
        return cls(
            targets,
            _sampling(settings, variables),
            _service_name(settings, variables),
            variables.number("OTEL_METRIC_EXPORT_INTERVAL", DEFAULT_INTERVAL * 1000, lambda ms: ms > 0)
            / 1000,
            tuple(variables.complaints) if targets else (),
        )


class _Variables:
    """The environment, and complaints about it; an empty variable counts as unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.complaints: list[str] = []

    def get(self, *names: str) -> str:
        """Return the first of these variables that is set; empty when none is."""
        return next((value for name in names if (value := self._environ.get(name, "").strip())), "")

    def complain(self, name: str, hint: str) -> None:
        """Note that a variable is ignored."""
        self.complaints.append(f"{name}={self.get(name)!r} is ignored: {hint}")

    def number(self, name: str, default: float, is_good: Callable[[float], bool]) -> float:
        """Return a variable as a number, or the default when it is unset or invalid."""
        text = self.get(name)
        if not text:
            return default
        try:
            if is_good(number := float(text)):
                return number
        except ValueError:
            pass
        self.complain(name, f"not a valid number; {default:g} is used")
        return default


def _target(signal: Signal, settings: TelemetrySettings, variables: _Variables) -> Target | None:
    """Return the destination of a signal; None when it is not exported."""
    exporter, own = f"OTEL_{signal.upper()}_EXPORTER", f"OTEL_EXPORTER_OTLP_{signal.upper()}"
    wanted = variables.get(exporter)
    if wanted not in ("", "otlp"):
        if wanted != "none":
            variables.complain(exporter, "only otlp and none are supported; nothing is exported")
        return None
    by_variable = variables.get(f"{own}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") != ""
    if not by_variable and not settings.otlp_endpoint and not wanted:
        return None
    protocol = _protocol(own, settings, variables)
    if by_variable or not settings.otlp_endpoint:
        endpoint = None
    else:
        endpoint = endpoint_of(signal, protocol, settings.otlp_endpoint)
    headers_by_variable = variables.get(f"{own}_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS") != ""
    # A key in the file goes only to the endpoint in the file.
    headers = dict(settings.headers) if endpoint and settings.headers and not headers_by_variable else None
    return Target(protocol, endpoint, headers)


def endpoint_of(signal: Signal, protocol: Protocol, address: str) -> str:
    """Return the endpoint of a signal, given the address of a collector.

    >>> endpoint_of(Signal.LOGS, Protocol.HTTP, "https://otel:4318/"), endpoint_of(
    ...     Signal.LOGS, Protocol.GRPC, "http://otel:4317")
    ('https://otel:4318/v1/logs', 'http://otel:4317')
    """
    return f"{address.rstrip('/')}/v1/{signal}" if protocol is Protocol.HTTP else address


def _protocol(own: str, settings: TelemetrySettings, variables: _Variables) -> Protocol:
    for name in (f"{own}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        text = variables.get(name)
        if text in tuple(Protocol):
            return Protocol(text)
        if text:
            variables.complain(name, f"supported are {' and '.join(Protocol)}")
    return Protocol(settings.otlp_protocol)


def _service_name(settings: TelemetrySettings, variables: _Variables) -> str | None:
    """Return the name to use; None when a variable has one."""
    in_attributes = "service.name=" in variables.get("OTEL_RESOURCE_ATTRIBUTES")
    return None if variables.get("OTEL_SERVICE_NAME") or in_attributes else settings.service_name


def _sampling(settings: TelemetrySettings, variables: _Variables) -> Sampling:
    name = variables.get("OTEL_TRACES_SAMPLER")
    kind = name.removeprefix("parentbased_")
    follows_parent = not name or kind != name
    match kind:
        case "":
            return Sampling(settings.sample_ratio)
        case "always_on":
            return Sampling(1.0, follows_parent)
        case "always_off":
            return Sampling(0.0, follows_parent)
        case "traceidratio":
            ratio = variables.number("OTEL_TRACES_SAMPLER_ARG", 1.0, lambda share: 0 <= share <= 1)
            return Sampling(ratio, follows_parent)
        case _:
            variables.complain(
                "OTEL_TRACES_SAMPLER",
                "supported are always_on, always_off, traceidratio, and each with the prefix parentbased_",
            )
            return Sampling(settings.sample_ratio)
