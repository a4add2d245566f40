from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.errors import QueueFullError, ServiceFailedError, ServiceStoppedError
from ai_proxy.core.lifecycle import State
from ai_proxy.core.scheduling import Join, Refuse, Resume, Serve, ServiceFacts, Start, Wait, decide
from ai_proxy.core.service import StartPolicy

facts_strategy = st.builds(
    ServiceFacts,
    state=st.sampled_from(State),
    start=st.sampled_from(StartPolicy),
    held=st.booleans(),
    resumable=st.booleans(),
    waiting=st.integers(0, 20),
    max_waiting=st.integers(0, 10),
    retry_at=st.floats(0, 2000),
    failure=st.text(max_size=10),
    log_tail=st.just(("last line",)),
    load_time=st.none() | st.floats(0, 100),
    since=st.floats(0, 1000),
)
NOW = 1000.0


@given(facts_strategy, st.booleans())
def test_only_a_ready_service_is_served(facts: ServiceFacts, arriving: bool) -> None:
    decision = decide("svc", facts, NOW, arriving=arriving)

    assert isinstance(decision, Serve) == (facts.state is State.READY)


@given(facts_strategy, st.booleans())
def test_a_start_is_asked_for_only_at_rest(facts: ServiceFacts, arriving: bool) -> None:
    decision = decide("svc", facts, NOW, arriving=arriving)

    if isinstance(decision, Start):
        assert facts.state in (State.STOPPED, State.FAILED)
        assert not facts.held
        assert facts.start is not StartPolicy.MANUAL


@given(facts_strategy, st.booleans())
def test_a_held_service_is_never_started_nor_waited_for(facts: ServiceFacts, arriving: bool) -> None:
    decision = decide("svc", facts, NOW, arriving=arriving)

    if facts.held and not isinstance(decision, Serve | Resume):
        assert isinstance(decision, Refuse)
        assert isinstance(decision.error, ServiceStoppedError)


@given(facts_strategy)
def test_the_queue_is_bounded_for_who_arrives_but_not_for_who_waits(facts: ServiceFacts) -> None:
    arriving = decide("svc", facts, NOW, arriving=True)
    waiting = decide("svc", facts, NOW, arriving=False)

    if isinstance(arriving, Join | Wait | Start):
        assert facts.waiting < facts.max_waiting
    assert not (isinstance(waiting, Refuse) and isinstance(waiting.error, QueueFullError))


@given(facts_strategy, st.booleans())
def test_every_reason_names_the_service_and_every_refusal_says_when_to_come_back_if_that_helps(
    facts: ServiceFacts, arriving: bool
) -> None:
    decision = decide("svc", facts, NOW, arriving=arriving)

    if isinstance(decision, Join | Wait):
        assert "svc" in decision.reason
    if isinstance(decision, Refuse):
        assert "svc" in decision.error.detail
        if isinstance(decision.error, ServiceFailedError | QueueFullError):
            assert decision.error.retry_after is not None
            assert decision.error.retry_after >= 1


def test_a_failed_service_is_refused_until_its_back_off_is_over_then_started() -> None:
    facts = ServiceFacts(State.FAILED, failure="exit code 3", retry_at=1010.0, log_tail=("boom",))

    early, late = decide("svc", facts, 1009.0), decide("svc", facts, 1010.0)

    assert isinstance(early, Refuse)
    assert isinstance(early.error, ServiceFailedError)
    assert early.error.log_tail == ("boom",)
    assert "exit code 3" in early.error.detail
    assert isinstance(late, Start)


def test_a_service_about_to_stop_for_want_of_use_is_called_back() -> None:
    facts = ServiceFacts(State.DRAINING, resumable=True)

    assert isinstance(decide("svc", facts, NOW), Resume)


def test_a_manual_service_tells_how_to_start_it() -> None:
    decision = decide("svc", ServiceFacts(State.STOPPED, start=StartPolicy.MANUAL), NOW)

    assert isinstance(decision, Refuse)
    assert "ai-proxy start svc" in decision.error.detail


def test_waiting_for_a_load_tells_how_long_it_took_last_time() -> None:
    decision = decide("svc", ServiceFacts(State.LOADING, load_time=40.0, since=988.0), NOW)

    assert decision == Join("svc is loading, 12 of about 40 s")
