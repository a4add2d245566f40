"""W3C Trace Context: reading and making traceparents, and sampling.

https://www.w3.org/TR/trace-context/ section 3.2 (traceparent) and 4.3 (mutating it).
"""

import re
from dataclasses import dataclass
from random import getrandbits  # as in the SDK: ids need not be unpredictable

_VALID = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
_SAMPLED = 1
_LOW_64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The content of a traceparent.

    Attributes:
        trace_id: Of the whole trace; 128 bits.
        span_id: Of the sender's span; 64 bits.
        sampled: Whether the sender keeps its span.
    """

    trace_id: int
    span_id: int
    sampled: bool


def parse(traceparent: bytes) -> TraceContext | None:
    """Parse a traceparent; None when it is invalid.

    >>> context = parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    >>> f"{context.trace_id:032x}", f"{context.span_id:016x}", context.sampled
    ('0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331', True)
    >>> parse(b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") is None
    True
    """
    match = _match(traceparent)
    if match is None:
        return None
    trace_id, span_id, flags = match[1], match[2], match[3]
    return TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))


def _match(traceparent: bytes) -> re.Match[bytes] | None:
    """Match a valid traceparent; one of a later version may go on after a further dash."""
    match = _VALID.fullmatch(traceparent)
    if match is None or (match[4] is not None and traceparent.startswith(b"00")):
        return None
    return match


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which traces are kept.

    Attributes:
        ratio: Share of traces to keep, from 0 to 1; the trace's id decides, so all programs decide alike.
        follows_parent: Whether a sender's decision takes precedence.
    """

    ratio: float = 1.0
    follows_parent: bool = True

    @property
    def bound(self) -> int:
        """The low 64 bits of a kept trace's id are below this, as in OpenTelemetry's TraceIdRatioBased.

        >>> Sampling(0.0).bound, Sampling(1.0).bound == 2**64
        (0, True)
        """
        return round(self.ratio * (_LOW_64 + 1))


class Traceparents:
    """A `core.ports.Tracing` that decides at the begin of a request whether its trace is kept."""

    def __init__(self, sampling: Sampling) -> None:
        self._bound = sampling.bound
        self._follows_parent = sampling.follows_parent

    def begin(self, traceparent: bytes) -> bytes:
        """Return the traceparent to forward; empty to forward the client's own.

        A trace that begins here is forwarded in either case, so that backends decide alike. A trace of the
        client that is not kept here continues as if the proxy were not there.
        """
        match = _match(traceparent) if traceparent else None
        if match is None:
            trace_id = getrandbits(128)
            kept = (trace_id & _LOW_64) < self._bound
            return b"00-%032x-%016x-0%d" % (trace_id, getrandbits(64), kept)
        if self._follows_parent:
            kept = bool(int(match[3], 16) & _SAMPLED)
        else:
            kept = int(match[1][16:], 16) < self._bound
        return b"00-%b-%016x-01" % (match[1], getrandbits(64)) if kept else b""
