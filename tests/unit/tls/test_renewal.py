"""When a certificate is replaced."""

from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.tls.certificates import Certificate
from ai_proxy.tls.renewal import (
    FIRST_PAUSE,
    LIMITED_PAUSE,
    LONGEST_PAUSE,
    Failures,
    after_failure,
    renewal_pause,
    renewal_time,
)

DAY = 86_400.0
MOMENTS = st.floats(0, 4e9)
LIVES = st.floats(DAY, 3650 * DAY)
NAMES = st.frozensets(st.sampled_from(["a.example", "b.example", "c.example"]))


def certificate(starts: float, life: float, *names: str) -> Certificate:
    return Certificate(frozenset(names), starts, starts + life, "CA", "1")


@given(MOMENTS, LIVES)
def test_it_is_renewed_when_a_third_of_its_life_is_left(starts: float, life: float) -> None:
    moment = renewal_time(certificate(starts, life))

    assert abs((starts + life - moment) - life / 3) < 1


def test_public_certificates_are_renewed_a_month_before_they_expire() -> None:
    kept = certificate(0, 90 * DAY, "a.example")

    assert renewal_pause(kept, ["a.example"], 59 * DAY) == DAY
    assert renewal_pause(kept, ["a.example"], 60 * DAY) == 0


@given(MOMENTS, LIVES, MOMENTS, NAMES, NAMES)
def test_it_is_due_exactly_when_it_is_old_or_does_not_fit(
    starts: float, life: float, now: float, names: frozenset[str], wanted: frozenset[str]
) -> None:
    kept = certificate(starts, life, *names)

    due = renewal_pause(kept, wanted, now) == 0

    assert due == (now >= renewal_time(kept) or not wanted <= names)


def test_none_is_due_at_once() -> None:
    assert renewal_pause(None, ["a.example"], 1e9) == 0


@given(MOMENTS, LIVES, MOMENTS, st.builds(Failures, st.integers(0, 50), MOMENTS))
def test_a_failure_only_ever_delays(starts: float, life: float, now: float, failures: Failures) -> None:
    kept = certificate(starts, life)

    without, with_failures = renewal_pause(kept, [], now), renewal_pause(kept, [], now, failures)

    assert without <= with_failures <= max(without, LONGEST_PAUSE)


@given(st.integers(0, 10_000), MOMENTS, st.booleans())
def test_pauses_stay_within_their_limits(count: int, now: float, limited: bool) -> None:
    after = after_failure(Failures(count), now, "x", limited=limited)

    pause = after.again - now
    assert (LIMITED_PAUSE if limited else FIRST_PAUSE) - 1 <= pause <= LONGEST_PAUSE + 1
    assert after.count == count + 1


def test_no_hour_has_five_failures() -> None:
    tries, failures = [0.0], Failures()
    while tries[-1] < 7 * DAY:
        failures = after_failure(failures, tries[-1], "refused")
        tries.append(failures.again)

    assert all(later - earlier >= 3600 for earlier, later in zip(tries, tries[4:], strict=False))


def test_a_certificate_of_six_days_is_tried_several_times_before_it_expires() -> None:
    kept = certificate(0, 6 * DAY, "a.example")
    tries, failures = [renewal_time(kept)], Failures()
    while tries[-1] < kept.ends:
        failures = after_failure(failures, tries[-1], "refused")
        tries.append(failures.again)

    assert len(tries) > 6
