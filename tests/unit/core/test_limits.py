from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.limits import FULL, UNSAID, Allowance, Rate, charge, remaining, shortage, take

rates = st.builds(Rate, per_minute=st.integers(1, 100_000), burst=st.integers(1, 10_000))
steps = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), max_size=100)
START = 1000.0


@given(rates, steps)
def test_never_more_is_granted_than_the_burst_and_what_flowed_in(
    rate: Rate, steps: list[tuple[float, int]]
) -> None:
    full_at, now, granted = FULL, START, 0
    for pause, cost in steps:
        now += pause
        taken = take(rate, full_at, now, cost)
        full_at, granted = taken.full_at, granted + cost * taken.allowed

        assert granted <= rate.burst + (now - START) / rate.interval + 1e-3


@given(rates, steps)
def test_a_wish_is_granted_when_its_retry_after_has_passed_and_not_before(
    rate: Rate, steps: list[tuple[float, int]]
) -> None:
    full_at, now = FULL, START
    for pause, cost in steps:
        now += pause
        taken = take(rate, full_at, now, cost)
        if not taken.allowed and cost <= rate.burst:
            assert take(rate, full_at, now + taken.retry_after, cost).allowed
            assert not take(rate, full_at, now + taken.retry_after * 0.99 - 1e-5, cost).allowed
        full_at = taken.full_at


@given(rates, st.floats(0, 1e6), st.floats(0, 1e4), st.integers(1, 50))
def test_waiting_never_makes_it_worse(rate: Rate, full_at: float, pause: float, cost: int) -> None:
    assert shortage(rate, full_at, START + pause, cost) <= shortage(rate, full_at, START, cost)
    assert remaining(rate, full_at, START + pause) >= remaining(rate, full_at, START)


@given(rates, st.integers(3, 1_000_000))
def test_asking_at_the_very_rate_is_never_refused_however_long(rate: Rate, times: int) -> None:
    full_at = FULL
    for index in (0, 1, 2, times, times + 1):
        taken = take(rate, full_at, START + index * rate.interval)

        assert taken.allowed
        full_at = taken.full_at


def test_a_bucket_at_rest_is_full_however_often_it_was_taken_from() -> None:
    rate = Rate(per_minute=7, burst=3)
    full_at, now = FULL, START
    for _ in range(1000):
        full_at, now = take(rate, full_at, now).full_at, now + rate.interval

    assert remaining(rate, full_at, now + rate.burst * rate.interval) == 3


@given(rates, st.integers(1, 10**6))
def test_debt_is_paid_off_at_the_rate(rate: Rate, tokens: int) -> None:
    full_at = charge(rate, FULL, START, tokens)

    missing = max(0, tokens + 1 - rate.burst) * rate.interval
    assert abs(shortage(rate, full_at, START) - missing) < 1e-3


def test_a_refused_wish_costs_nothing() -> None:
    rate = Rate(60, 1)
    full_at = take(rate, FULL, START).full_at

    refused = take(rate, full_at, START)

    assert refused.full_at == full_at
    assert refused.retry_after == 1.0


def test_what_an_allowance_leaves_unsaid_is_as_in_the_other_and_zero_is_no_limit() -> None:
    own = Allowance(rpm=0, tpm=500)

    merged = own.over(Allowance(rpm=60, burst=5, concurrency=2))

    assert merged == Allowance(rpm=0, burst=5, tpm=500, concurrency=2)
    assert merged.requests is None
    assert merged.tokens == Rate(500, 500)
    assert UNSAID.over(own) == own
