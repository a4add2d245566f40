"""The state table of a client's connection."""

from ai_proxy.gateway.http.client import READ_TRANSITIONS, ReadEvent, Reading, diagram


def test_every_state_can_be_reached_and_left() -> None:
    reached = {Reading.IDLE}
    while more := {after for (before, _), after in READ_TRANSITIONS.items() if before in reached} - reached:
        reached |= more

    assert reached == set(Reading)
    assert all(READ_TRANSITIONS[state, ReadEvent.LOST] is Reading.CLOSED for state in Reading)


def test_a_connection_that_has_ended_or_lingers_is_never_read_again() -> None:
    after = {state for (before, _), state in READ_TRANSITIONS.items() if before is Reading.CLOSED}
    lingering = {state for (before, _), state in READ_TRANSITIONS.items() if before is Reading.LINGERING}

    assert after == {Reading.CLOSED}
    assert lingering == {Reading.LINGERING, Reading.CLOSED}


def test_what_was_rejected_is_never_parsed_again() -> None:
    after = {state for (before, _), state in READ_TRANSITIONS.items() if before is Reading.DISCARDING}

    assert after == {Reading.DISCARDING, Reading.LINGERING, Reading.CLOSED}


def test_the_diagram_shows_every_state() -> None:
    assert all(state.name.lower() in diagram() for state in Reading)
