from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.scheduling import idle_deadline

seconds = st.floats(min_value=0, max_value=1e6)


@given(seconds, seconds, st.integers(1, 100))
def test_a_service_in_use_is_never_due(last_used: float, timeout: float, in_flight: int) -> None:
    now = last_used + 1e6

    deadline = idle_deadline(in_flight=in_flight, last_used=last_used, idle_timeout=timeout, now=now)

    assert deadline is None or deadline > now or timeout < 1e-9


@given(seconds, st.floats(min_value=0.001, max_value=1e6), seconds)
def test_an_unused_service_is_due_exactly_after_its_timeout(
    last_used: float, timeout: float, since: float
) -> None:
    deadline = idle_deadline(in_flight=0, last_used=last_used, idle_timeout=timeout, now=last_used + since)

    assert deadline == last_used + timeout
