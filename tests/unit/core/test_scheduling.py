from hypothesis import given
from hypothesis import strategies as st

from ai_proxy.core.errors import QueueFullError, ServiceFailedError, ServiceStoppedError
from ai_proxy.core.lifecycle import State
from ai_proxy.core.scheduling import (
    Ask,
    Join,
    Origin,
    Refuse,
    Serve,
    ServiceFacts,
    Start,
    Wait,
    World,
    decide,
)
from ai_proxy.core.service import StartPolicy

facts_strategy = st.builds(
    ServiceFacts,
    state=st.sampled_from(State),
    start=st.sampled_from(StartPolicy),
    held=st.booleans(),
    owned=st.booleans(),
    waiting=st.integers(0, 20),
    max_waiting=st.integers(0, 10),
    retry_at=st.floats(0, 2000),
    failure=st.text(max_size=10),
    log_tail=st.just(("last line",)),
    load_time=st.none() | st.floats(0, 100),
    since=st.floats(0, 1000),
)
NOW = 1000.0
SVC = Ask("svc")


@given(facts_strategy, st.booleans())
def test_only_a_ready_service_is_served(facts: ServiceFacts, arriving: bool) -> None:
    decision = decide(SVC, World(NOW, facts), arriving=arriving)

    assert isinstance(decision, Serve) == (facts.state is State.READY)


@given(facts_strategy, st.booleans())
def test_a_start_is_asked_for_only_at_rest(facts: ServiceFacts, arriving: bool) -> None:
    decision = decide(SVC, World(NOW, facts), arriving=arriving)

    if isinstance(decision, Start):
        assert facts.state in (State.STOPPED, State.FAILED)
        assert not facts.held
        assert facts.start is not StartPolicy.MANUAL


@given(facts_strategy, st.booleans())
def test_a_held_service_is_never_started_nor_waited_for(facts: ServiceFacts, arriving: bool) -> None:
    decision = decide(SVC, World(NOW, facts), arriving=arriving)

    if facts.held and not isinstance(decision, Serve):
        assert isinstance(decision, Refuse)
        assert isinstance(decision.error, ServiceStoppedError)


@given(facts_strategy)
def test_the_queue_is_bounded_for_who_arrives_but_not_for_who_waits(facts: ServiceFacts) -> None:
    arriving = decide(SVC, World(NOW, facts), arriving=True)
    waiting = decide(SVC, World(NOW, facts), arriving=False)

    if isinstance(arriving, Join | Wait | Start):
        assert facts.waiting < facts.max_waiting
    assert not (isinstance(waiting, Refuse) and isinstance(waiting.error, QueueFullError))


@given(facts_strategy, st.booleans())
def test_every_reason_names_the_service_and_every_refusal_says_when_to_come_back_if_that_helps(
    facts: ServiceFacts, arriving: bool
) -> None:
    decision = decide(SVC, World(NOW, facts), arriving=arriving)

    if isinstance(decision, Join | Wait):
        assert "svc" in decision.reason
    if isinstance(decision, Refuse):
        assert "svc" in decision.error.detail
        if isinstance(decision.error, ServiceFailedError | QueueFullError):
            assert decision.error.retry_after is not None
            assert decision.error.retry_after >= 1


def test_a_failed_service_is_refused_until_its_back_off_is_over_then_started() -> None:
    facts = ServiceFacts(State.FAILED, failure="exit code 3", retry_at=1010.0, log_tail=("boom",))

    early, late = decide(SVC, World(1009.0, facts)), decide(SVC, World(1010.0, facts))

    assert isinstance(early, Refuse)
    assert isinstance(early.error, ServiceFailedError)
    assert early.error.log_tail == ("boom",)
    assert "exit code 3" in early.error.detail
    assert isinstance(late, Start)


@given(facts_strategy)
def test_a_person_is_never_refused(facts: ServiceFacts) -> None:
    by_hand = Ask("svc", origin=Origin.OPERATOR, reason="started by hand")

    decision = decide(by_hand, World(NOW, facts), arriving=False)

    assert not isinstance(decision, Refuse)
    if facts.state in (State.STOPPED, State.FAILED):
        assert decision == Start("started by hand")


def test_a_service_that_always_runs_waits_for_the_end_of_its_back_off() -> None:
    always = Ask("svc", origin=Origin.POLICY, reason="it is declared to run always")
    facts = ServiceFacts(State.FAILED, failure="exit code 3", retry_at=1010.0)

    early, late = decide(always, World(1008.0, facts)), decide(always, World(1010.0, facts))

    assert early == Wait("svc failed, exit code 3; the next try is in 2 s", until=1010.0)
    assert late == Start("it is declared to run always")


def test_a_failed_service_that_runs_by_itself_is_looked_at_again_when_a_request_comes() -> None:
    facts = ServiceFacts(State.FAILED, owned=False, retry_at=1030.0, since=1000.0, failure="refused")

    at_once, later = decide(SVC, World(1000.5, facts)), decide(SVC, World(1001.0, facts))

    assert isinstance(at_once, Refuse), "a flood of requests is no flood of health checks"
    assert isinstance(later, Start)


def test_waiting_for_a_start_tells_what_it_is_busy_with() -> None:
    facts = ServiceFacts(State.STARTING, progress="pulling image: 3 of 7 layers", load_time=40.0)

    assert decide(SVC, World(NOW, facts)) == Join("svc is starting: pulling image: 3 of 7 layers")


def test_a_manual_service_tells_how_to_start_it() -> None:
    decision = decide(SVC, World(NOW, ServiceFacts(State.STOPPED, start=StartPolicy.MANUAL)))

    assert isinstance(decision, Refuse)
    assert "ai-proxy start svc" in decision.error.detail


def test_waiting_for_a_load_tells_how_long_it_took_last_time() -> None:
    decision = decide(SVC, World(NOW, ServiceFacts(State.LOADING, load_time=40.0, since=988.0)))

    assert decision == Join("svc is loading, 12 of about 40 s")
