"""When an unused service is let go."""


def idle_deadline(*, in_flight: int, last_used: float, idle_timeout: float, now: float) -> float | None:
    """Return when the question of stopping must be asked (again); in the past or now means: stop.

    Requests in flight, open streams and WebSockets among them, are use.

    Args:
        in_flight: Leases held.
        last_used: When the last lease was given or given back, in monotonic seconds.
        idle_timeout: In seconds; 0 for never.
        now: Monotonic seconds.

    Returns:
        Monotonic seconds, or None for never.

    >>> idle_deadline(in_flight=0, last_used=100.0, idle_timeout=10.0, now=105.0)
    110.0
    >>> idle_deadline(in_flight=1, last_used=100.0, idle_timeout=10.0, now=500.0)
    510.0
    >>> idle_deadline(in_flight=0, last_used=100.0, idle_timeout=0.0, now=105.0) is None
    True
    """
    if idle_timeout <= 0:
        return None
    return (now if in_flight else last_used) + idle_timeout
