from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.events import ServiceEvent
from ai_proxy.core.lifecycle import TRANSITIONS, Event, State
from ai_proxy.telemetry.operations import Operation, Operations


def follow(*steps: tuple[Event, State]) -> list[Operation]:
    """Return the operations that are over after these events, one second apart."""
    operations = Operations()
    events = [
        ServiceEvent(n, float(n), "llama", event, state, f"why {n}") for n, (event, state) in enumerate(steps)
    ]
    return [operation for event in events for operation in operations.add(event)]


def test_start_is_over_when_the_service_is_ready() -> None:
    (start,) = follow(
        (Event.START, State.STARTING), (Event.LAUNCHED, State.LOADING), (Event.PROBE_OK, State.READY)
    )

    assert (start.kind, start.began, start.ended, start.failed) == ("start", 0.0, 2.0, False)
    assert [(phase.state, phase.began) for phase in start.phases] == [
        (State.STARTING, 0.0),
        (State.LOADING, 1.0),
    ]


def test_start_that_fails_is_over_when_nothing_runs_any_more() -> None:
    (start,) = follow(
        (Event.START, State.STARTING), (Event.FAULT, State.FAILING), (Event.EXITED, State.FAILED)
    )

    assert (start.kind, start.failed, start.outcome, start.reason) == ("start", True, State.FAILED, "why 2")


def test_stop_takes_in_the_draining() -> None:
    (stop,) = follow(
        (Event.DRAIN, State.DRAINING), (Event.DRAINED, State.STOPPING), (Event.EXITED, State.STOPPED)
    )

    assert (stop.kind, stop.failed) == ("stop", False)
    assert [phase.state for phase in stop.phases] == [State.DRAINING, State.STOPPING]


def test_stop_during_a_start_ends_the_start_and_begins_a_stop() -> None:
    start, stop = follow(
        (Event.START, State.STARTING), (Event.STOP, State.STOPPING), (Event.EXITED, State.STOPPED)
    )

    assert (start.kind, start.failed, start.ended) == ("start", True, 1.0)
    assert (stop.kind, stop.failed, stop.began) == ("stop", False, 1.0)


def test_crash_is_an_exit_that_nobody_asked_for() -> None:
    (crash,) = follow((Event.EXITED, State.FAILED))

    assert (crash.kind, crash.failed, crash.began, crash.ended) == ("exit", True, 0.0, 0.0)


def test_what_stops_nothing_is_no_operation() -> None:
    assert follow((Event.ABSENT, State.STOPPED), (Event.STOP, State.STOPPED)) == []


@given(st.data())
def test_whatever_a_service_goes_through_operations_are_in_order_and_end(data: st.DataObject) -> None:
    state, steps = State.UNKNOWN, []
    for _ in range(data.draw(st.integers(1, 20))):
        event = data.draw(st.sampled_from([e for (s, e) in TRANSITIONS if s is state]))
        state = TRANSITIONS[state, event]
        steps.append((event, state))

    operations = follow(*steps)

    assert all(operation.began <= operation.ended for operation in operations)
    assert all(operation.phases for operation in operations)
    assert [operation.ended for operation in operations] == sorted(
        operation.ended for operation in operations
    )
