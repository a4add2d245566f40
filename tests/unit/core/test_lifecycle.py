import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.lifecycle import (
    RUNNING,
    TRANSITIONS,
    Event,
    InvalidTransitionError,
    State,
    backoff,
    count_failure,
    diagram,
    transition,
)


def test_ready_is_entered_only_by_a_probe() -> None:
    entering = {event for (_, event), target in TRANSITIONS.items() if target is State.READY}

    assert entering == {Event.PROBE_OK}


def test_rest_is_entered_from_a_running_state_only_with_proof_of_the_end() -> None:
    entering = {
        event
        for (source, event), target in TRANSITIONS.items()
        if source in RUNNING and target in (State.STOPPED, State.FAILED)
    }

    assert entering == {Event.EXITED}


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_and_left(state: State) -> None:
    reached = set(TRANSITIONS.values()) | {State.UNKNOWN}
    left = {source for source, _ in TRANSITIONS}

    assert state in reached
    assert state in left


@given(st.sampled_from(State), st.sampled_from(Event))
def test_an_event_the_table_does_not_know_is_refused(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert transition(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(InvalidTransitionError, match=event):
            transition(state, event)


@given(st.lists(st.sampled_from(Event), max_size=50))
def test_whatever_happens_every_state_but_rest_has_a_way_to_rest(events: list[Event]) -> None:
    state = State.UNKNOWN
    for event in events:
        state = TRANSITIONS.get((state, event), state)

    seen = {state}
    frontier = {state}
    while frontier:
        frontier = {t for (s, _), t in TRANSITIONS.items() if s in frontier} - seen
        seen |= frontier

    assert State.STOPPED in seen


@given(st.integers(min_value=0, max_value=10_000))
def test_backoff_grows_and_is_bounded(failures: int) -> None:
    assert 0 <= backoff(failures) <= backoff(failures + 1) <= 60


@given(st.integers(min_value=0, max_value=100), st.floats(min_value=0, max_value=1e6))
def test_a_failure_after_a_stable_time_counts_as_the_first(failures: int, ready_for: float) -> None:
    counted = count_failure(failures, ready_for)

    assert counted == (1 if ready_for >= 60 else failures + 1)


def test_the_diagram_shows_every_transition() -> None:
    drawn = diagram()

    for (source, event), target in TRANSITIONS.items():
        line = next(line for line in drawn.splitlines() if line.strip().startswith(f"{source} --> {target}:"))
        assert event in line
