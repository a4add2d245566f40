from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.replicas import MAX_OPEN, MAX_RETRY_AFTER, Circuit, ReplicaStatus, choose, classify
from ai_proxy.core.service import Outcome

outcomes = st.sampled_from(Outcome)
steps = st.lists(st.tuples(outcomes, st.floats(0, 100), st.floats(0, 1000)), max_size=30)


def live(history: list[tuple[Outcome, float, float]]) -> tuple[Circuit, float]:
    """Return the circuit and the time after a history of (outcome, seconds since the last, Retry-After)."""
    circuit, now = Circuit(), 1000.0
    for outcome, seconds, retry_after in history:
        now += seconds
        circuit = classify(circuit, outcome, now, retry_after)
    return circuit, now


@given(steps)
def test_a_success_closes_the_circuit(history: list[tuple[Outcome, float, float]]) -> None:
    circuit, now = live(history)

    assert classify(circuit, Outcome.OK, now) == Circuit()


@given(steps)
def test_no_circuit_is_open_for_ever(history: list[tuple[Outcome, float, float]]) -> None:
    circuit, now = live(history)

    assert circuit.lets_through(now + max(MAX_OPEN, MAX_RETRY_AFTER))


@given(steps)
def test_a_circuit_opens_at_once_when_it_cannot_be_reached(
    history: list[tuple[Outcome, float, float]],
) -> None:
    circuit, now = live(history)

    assert not classify(circuit, Outcome.CONNECT_FAILED, now).lets_through(now + 0.9)


@given(steps)
def test_a_client_that_leaves_changes_nothing_but_the_trial(
    history: list[tuple[Outcome, float, float]],
) -> None:
    circuit, now = live(history)

    after = classify(circuit, Outcome.CLIENT_GONE, now)

    assert (after.failures, after.openings, after.open_until) == (
        circuit.failures,
        circuit.openings,
        circuit.open_until,
    )
    assert not after.trial


def test_errors_are_forgiven_until_there_are_three_in_a_row() -> None:
    circuit = Circuit()
    usable = []
    for _ in range(3):
        circuit = classify(circuit, Outcome.SERVER_ERROR, 100.0)
        usable.append(circuit.lets_through(100.0))

    assert usable == [True, True, False]


def test_a_circuit_is_open_for_longer_after_every_failed_trial() -> None:
    circuit, now, seconds = Circuit(), 100.0, []
    for _ in range(8):
        circuit = classify(circuit, Outcome.CONNECT_FAILED, now)
        seconds.append(circuit.open_until - now)
        now = circuit.open_until

    assert seconds == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_half_open_circuit_lets_one_request_at_a_time_through() -> None:
    half_open = Circuit(failures=1, openings=1, open_until=5.0)

    assert half_open.lets_through(6.0)
    assert not Circuit(failures=1, openings=1, open_until=5.0, trial=True).lets_through(6.0)


statuses = st.lists(
    st.builds(
        ReplicaStatus,
        in_flight=st.integers(0, 50),
        circuit=st.builds(
            Circuit,
            failures=st.integers(0, 5),
            openings=st.integers(0, 5),
            open_until=st.sampled_from([0.0, 50.0, 150.0]),
            trial=st.booleans(),
        ),
    ),
    min_size=1,
    max_size=6,
)


@given(statuses)
def test_the_least_busy_that_may_be_used_is_chosen(replicas: list[ReplicaStatus]) -> None:
    index = choose(replicas, now=100.0)

    usable = [r for r in replicas if r.circuit.lets_through(100.0)]
    if index is None:
        assert not usable
    else:
        assert replicas[index].circuit.lets_through(100.0)
        assert replicas[index].in_flight == min(r.in_flight for r in usable)


@given(statuses)
def test_an_open_circuit_never_attracts_a_request(replicas: list[ReplicaStatus]) -> None:
    index = choose(replicas, now=100.0)

    assert index is None or replicas[index].circuit.open_until <= 100.0
