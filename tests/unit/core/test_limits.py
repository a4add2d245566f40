from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.limits import UNSAID, Allowance, Bucket, Rate

rates = st.builds(Rate, per_minute=st.integers(1, 100_000), burst=st.integers(1, 10_000))
steps = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), max_size=100)
START = 1000.0


@given(rates, steps)
def test_never_more_is_granted_than_the_burst_and_what_flowed_in(
    rate: Rate, steps: list[tuple[float, int]]
) -> None:
    bucket, now, granted = Bucket(rate), START, 0
    for pause, cost in steps:
        now += pause
        granted += cost * (not bucket.take(now, cost))

        assert granted <= rate.burst + (now - START) / rate.interval + 1e-3


@given(rates, steps)
def test_a_wish_is_granted_when_its_shortage_has_passed_and_not_before(
    rate: Rate, steps: list[tuple[float, int]]
) -> None:
    bucket, now = Bucket(rate), START
    for pause, cost in steps:
        now += pause
        wait = bucket.take(now, cost)
        if wait and cost <= rate.burst:
            assert not bucket.shortage(now + wait, cost)
            assert bucket.shortage(now + wait * 0.99 - 1e-5, cost)


@given(rates, st.floats(0, 1e6), st.floats(0, 1e4), st.integers(1, 50))
def test_waiting_never_makes_it_worse(rate: Rate, full_at: float, pause: float, cost: int) -> None:
    bucket = Bucket(rate)
    bucket.full_at = full_at

    assert bucket.shortage(START + pause, cost) <= bucket.shortage(START, cost)
    assert bucket.remaining(START + pause) >= bucket.remaining(START)


@given(rates, st.integers(3, 1_000_000))
def test_asking_at_the_very_rate_is_never_refused_however_long(rate: Rate, times: int) -> None:
    bucket = Bucket(rate)
    for index in (0, 1, 2, times, times + 1):
        assert not bucket.take(START + index * rate.interval)


def test_a_bucket_at_rest_is_full_however_often_it_was_taken_from() -> None:
    rate = Rate(per_minute=7, burst=3)
    bucket, now = Bucket(rate), START
    for _ in range(1000):
        bucket.take(now)
        now += rate.interval

    assert bucket.remaining(now + rate.burst * rate.interval) == 3


@given(rates, st.integers(1, 10**6))
def test_debt_is_paid_off_at_the_rate(rate: Rate, tokens: int) -> None:
    bucket = Bucket(rate)
    bucket.charge(START, tokens)

    missing = max(0, tokens + 1 - rate.burst) * rate.interval
    assert abs(bucket.shortage(START) - missing) < 1e-3


@given(rates, rates, st.integers(1, 10**6))
def test_as_much_is_missing_at_another_rate(old: Rate, new: Rate, tokens: int) -> None:
    bucket, same = Bucket(old), Bucket(new)
    bucket.charge(START, tokens)
    same.charge(START, tokens)

    bucket.change(new, START)

    assert abs(bucket.full_at - same.full_at) < 1e-3


def test_a_refused_wish_costs_nothing() -> None:
    bucket = Bucket(Rate(60, 1))
    bucket.take(START)

    assert bucket.take(START) == bucket.take(START) == 1.0


def test_a_bucket_without_a_rate_is_never_empty_and_not_told_of() -> None:
    bucket = Bucket()
    bucket.charge(START, 10**9)

    assert bucket.shortage(START, 10**9) == 0.0
    assert bucket.headers(b"requests", START) == b""


def test_what_an_allowance_leaves_unsaid_is_as_in_the_other_and_zero_is_no_limit() -> None:
    own = Allowance(rpm=0, tpm=500)

    merged = own.over(Allowance(rpm=60, burst=5, concurrency=2))

    assert merged == Allowance(rpm=0, burst=5, tpm=500, concurrency=2)
    assert merged.requests is None
    assert merged.tokens == Rate(500, 500)
    assert UNSAID.over(own) == own
