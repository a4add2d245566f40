from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.replicas import MAX_ASKED_REST, MAX_REST, Circuit, Standing, choose, judge, may_use
from ai_proxy.core.service import Outcome

outcomes = st.sampled_from(Outcome)
steps = st.lists(st.tuples(outcomes, st.floats(0, 100), st.floats(0, 1000)), max_size=30)


def live(history: list[tuple[Outcome, float, float]]) -> tuple[Circuit, float]:
    """Return the circuit and the time after a history of (outcome, seconds since the last, Retry-After)."""
    circuit, now = Circuit(), 1000.0
    for outcome, seconds, retry_after in history:
        now += seconds
        circuit = judge(circuit, outcome, now, retry_after)
    return circuit, now


@given(steps)
def test_a_success_restores_all_trust(history: list[tuple[Outcome, float, float]]) -> None:
    circuit, now = live(history)

    assert judge(circuit, Outcome.OK, now) == Circuit()


@given(steps)
def test_no_rest_is_for_ever(history: list[tuple[Outcome, float, float]]) -> None:
    circuit, now = live(history)

    assert may_use(circuit, now + max(MAX_REST, MAX_ASKED_REST))


@given(steps)
def test_one_that_cannot_be_reached_is_rested_at_once(history: list[tuple[Outcome, float, float]]) -> None:
    circuit, now = live(history)

    assert not may_use(judge(circuit, Outcome.CONNECT_FAILED, now), now + 0.9)


@given(steps)
def test_a_client_that_leaves_changes_nothing_but_the_trial(
    history: list[tuple[Outcome, float, float]],
) -> None:
    circuit, now = live(history)

    after = judge(circuit, Outcome.CLIENT_GONE, now)

    assert (after.failures, after.rests, after.rests_until) == (
        circuit.failures,
        circuit.rests,
        circuit.rests_until,
    )
    assert not after.tried


def test_errors_are_forgiven_until_there_are_three_in_a_row() -> None:
    circuit = Circuit()
    usable = []
    for _ in range(3):
        circuit = judge(circuit, Outcome.SERVER_ERROR, 100.0)
        usable.append(may_use(circuit, 100.0))

    assert usable == [True, True, False]


def test_rests_grow_with_every_failed_trial() -> None:
    circuit, now, rests = Circuit(), 100.0, []
    for _ in range(8):
        circuit = judge(circuit, Outcome.CONNECT_FAILED, now)
        rests.append(circuit.rests_until - now)
        now = circuit.rests_until

    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]


def test_after_its_rest_one_request_at_a_time_tries_a_replica() -> None:
    rested = Circuit(failures=1, rests=1, rests_until=5.0)

    assert may_use(rested, 6.0)
    assert not may_use(Circuit(failures=1, rests=1, rests_until=5.0, tried=True), 6.0)


standings = st.lists(
    st.builds(
        Standing,
        in_flight=st.integers(0, 50),
        circuit=st.builds(
            Circuit,
            failures=st.integers(0, 5),
            rests=st.integers(0, 5),
            rests_until=st.sampled_from([0.0, 50.0, 150.0]),
            tried=st.booleans(),
        ),
    ),
    min_size=1,
    max_size=6,
)


@given(standings)
def test_the_least_busy_that_may_be_used_is_chosen(replicas: list[Standing]) -> None:
    index = choose(replicas, now=100.0)

    usable = [r for r in replicas if may_use(r.circuit, 100.0)]
    if index is None:
        assert not usable
    else:
        assert may_use(replicas[index].circuit, 100.0)
        assert replicas[index].in_flight == min(r.in_flight for r in usable)


@given(standings)
def test_one_that_rests_never_attracts_a_request(replicas: list[Standing]) -> None:
    index = choose(replicas, now=100.0)

    assert index is None or replicas[index].circuit.rests_until <= 100.0
