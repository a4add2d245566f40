import timeit
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.rigs.plane import view
from tests.rigs.recorder import NullRecorder
from tests.rigs.usage import finished

from ai_proxy.core.lifecycle import State
from ai_proxy.core.ports import Recorder
from ai_proxy.platform.tasks import Restarts
from ai_proxy.telemetry.metrics import BATCH, BUCKETS, MAX_MODELS, OTHER_MODELS, Histogram, Metrics
from ai_proxy.telemetry.prometheus import render

type Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(recorder: Metrics, restarts: Mapping[str, Restarts] | None = None) -> Samples:
    services = [view("llama3", State.READY, in_flight=2, waiting=1)]
    body, content_type = render(recorder.services, services, restarts or {}, 7, "1.2.3")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.fixture
def recorder() -> Metrics:
    recorder = Metrics()
    recorder.state("llama3", "stopped")
    return recorder


def test_exchange_is_counted_in_every_metric(recorder: Metrics) -> None:
    for _ in range(3):
        recorder.exchange("llama3", 200, seconds=0.7, first_byte=0.02, received=10, sent=100)
    recorder.exchange("llama3", 499, seconds=3.0, first_byte=-1.0, received=1, sent=0)

    samples = scrape(recorder)

    assert value(samples, "ai_proxy_requests_total", service="llama3", status="200") == 3
    assert value(samples, "ai_proxy_requests_total", service="llama3", status="499") == 1
    assert value(samples, "ai_proxy_received_bytes_total", service="llama3") == 31
    assert value(samples, "ai_proxy_sent_bytes_total", service="llama3") == 300
    durations = "ai_proxy_request_duration_seconds"
    assert value(samples, f"{durations}_count", service="llama3") == 4
    assert value(samples, f"{durations}_sum", service="llama3") == pytest.approx(5.1)
    assert value(samples, f"{durations}_bucket", service="llama3", le="1.0") == 3
    assert value(samples, "ai_proxy_time_to_first_byte_seconds_count", service="llama3") == 3


def test_labels_stay_bounded_whatever_services_are_named(recorder: Metrics) -> None:
    for number in range(100):
        recorder.exchange(f"made up {number}", 404, 0.1, 0.1, 0, 0)

    samples = scrape(recorder)

    assert value(samples, "ai_proxy_requests_total", service="", status="404") == 100
    assert {dict(labels)["service"] for name, labels in samples if name.startswith("ai_proxy_requests")} == {
        "",
        "llama3",
    }


def test_starts_and_states_are_counted(recorder: Metrics) -> None:
    for state in ("starting", "loading", "ready", "failed", "starting"):
        recorder.state("llama3", state)
    recorder.started("llama3", 4.0)

    samples = scrape(recorder)

    assert value(samples, "ai_proxy_service_starts_total", service="llama3") == 1
    assert value(samples, "ai_proxy_service_load_seconds_sum", service="llama3") == 4.0
    assert value(samples, "ai_proxy_service_transitions_total", service="llama3", state="starting") == 2


def test_standing_of_services_is_read_at_scrape(recorder: Metrics) -> None:
    samples = scrape(recorder)

    assert value(samples, "ai_proxy_requests_in_flight", service="llama3") == 2
    assert value(samples, "ai_proxy_requests_waiting", service="llama3") == 1
    states = {
        state: value(samples, "ai_proxy_service_state", service="llama3", state=state) for state in State
    }
    assert [state for state, is_in in states.items() if is_in] == [State.READY]


def test_forgotten_service_is_gone_and_counts_as_other(recorder: Metrics) -> None:
    recorder.exchange("llama3", 200, 0.1, 0.1, 0, 0)
    recorder.forget("llama3")
    recorder.exchange("llama3", 200, 0.1, 0.1, 0, 0)

    samples = scrape(recorder)

    assert value(samples, "ai_proxy_requests_total", service="", status="200") == 1
    assert ("ai_proxy_requests_total", frozenset({("service", "llama3"), ("status", "200")})) not in samples


def test_build_and_process_are_told(recorder: Metrics) -> None:
    samples = scrape(recorder)

    assert {dict(labels)["version"] for name, labels in samples if name == "ai_proxy_build_info"} == {"1.2.3"}
    assert value(samples, "process_resident_memory_bytes") > 0


def test_request_to_a_model_is_counted_in_every_metric_of_the_model(recorder: Metrics) -> None:
    recorder.finished(finished(service_id="llama3", model="tiny"))
    recorder.finished(finished(service_id="llama3", model="tiny", status=503, tokens_in=-1, tokens_out=-1))

    samples = scrape(recorder)

    of = {"service": "llama3", "model": "tiny"}
    assert value(samples, "ai_proxy_model_requests_total", **of, status="200") == 1
    assert value(samples, "ai_proxy_model_requests_total", **of, status="503") == 1
    assert value(samples, "ai_proxy_model_request_duration_seconds_count", **of) == 2
    assert value(samples, "ai_proxy_queue_wait_seconds_sum", **of) == 1.0
    assert value(samples, "ai_proxy_time_to_first_token_seconds_sum", **of) == 1.0
    assert value(samples, "ai_proxy_output_tokens_per_second_sum", **of) == 10.0
    assert value(samples, "ai_proxy_input_tokens_total", **of) == 9
    assert value(samples, "ai_proxy_output_tokens_total", **of) == 21


def test_only_streams_tell_when_the_first_token_came(recorder: Metrics) -> None:
    recorder.finished(finished(service_id="llama3", streamed=False, first_token=2.999))

    samples = scrape(recorder)

    of = {"service": "llama3", "model": "llama3"}
    assert value(samples, "ai_proxy_time_to_first_token_seconds_count", **of) == 0
    assert value(samples, "ai_proxy_output_tokens_per_second_count", **of) == 0
    assert value(samples, "ai_proxy_output_tokens_total", **of) == 21


def models(samples: Samples, service: str) -> set[str]:
    found = [dict(labels) for name, labels in samples if name == "ai_proxy_model_requests_total"]
    return {labels["model"] for labels in found if labels["service"] == service}


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
def test_models_stay_bounded_whatever_names_are_made_up(recorder: Metrics) -> None:
    for number in range(2 * MAX_MODELS):
        recorder.finished(finished(service_id="", model=f"unknown {number}", status=404))
        recorder.finished(finished(service_id="llama3", model=f"refused {number}", status=404))
        recorder.finished(finished(service_id="llama3", model=f"answered {number}"))

    samples = scrape(recorder)

    assert models(samples, "") == {""}
    assert len(models(samples, "llama3")) == MAX_MODELS
    assert {name for name in models(samples, "llama3") if not name.startswith("answered")} == {OTHER_MODELS}
    refused = {"service": "llama3", "model": OTHER_MODELS, "status": "404"}
    assert value(samples, "ai_proxy_model_requests_total", **refused) == 2 * MAX_MODELS


@pytest.mark.threat("a backend", "exhaustion of memory or CPU time")
@given(name=st.text(alphabet=st.characters(), max_size=300))
def test_metrics_can_be_read_whatever_a_model_is_called(name: str) -> None:
    recorder = Metrics()
    recorder.state("llama3", "ready")

    recorder.finished(finished(service_id="llama3", model=name))

    (label,) = models(scrape(recorder), "llama3")
    assert label in (name, OTHER_MODELS)


@given(st.lists(st.floats(min_value=0, max_value=1e6)))
def test_histogram_puts_each_observation_in_every_bucket_that_holds_it(observations: list[float]) -> None:
    histogram = Histogram(BUCKETS)
    for seconds in observations:
        histogram.observe(seconds)

    *bounded, (_, everything) = histogram.cumulative()
    assert everything == len(observations)
    assert [count for _, count in bounded] == [
        sum(seconds <= float(bound) for seconds in observations) for bound, _ in bounded
    ]


def test_recording_costs_next_to_nothing(recorder: Metrics) -> None:
    def record() -> None:
        recorder.exchange("llama3", 200, 0.7, 0.02, 10, 100)

    fastest = min(timeit.repeat(record, number=2000, repeat=20)) / 2000

    assert fastest < 5e-6  # under 1 us where it was written; the rest is for slow and busy machines


def test_recording_a_request_to_a_model_costs_little(recorder: Metrics) -> None:
    request = finished(service_id="llama3")

    fastest = min(timeit.repeat(lambda: recorder.finished(request), number=2000, repeat=20)) / 2000

    assert fastest < 15e-6  # 2.5 us where it was written


def test_everybody_is_told_of_a_request_to_a_model() -> None:
    told: list[object] = []
    recorder = Metrics()
    recorder.listen(told.extend)
    request = finished()

    recorder.finished(request)
    recorder.settle()
    recorder.settle()

    assert told == [request]


def test_a_listener_that_fails_harms_neither_the_metrics_nor_the_other_listeners(recorder: Metrics) -> None:
    told: list[object] = []

    def fail(_: object) -> None:
        raise RuntimeError("no such row")

    recorder.listen(fail)
    recorder.listen(told.extend)
    recorder.finished(finished(service_id="llama3"))
    recorder.settle()

    assert len(told) == 1
    assert value(scrape(recorder), "ai_proxy_requests_total", service="llama3", status="200") == 1


def test_tasks_are_counted(recorder: Metrics) -> None:
    assert value(scrape(recorder), "ai_proxy_tasks") == 7


def test_restarts_of_background_work_are_counted_by_task(recorder: Metrics) -> None:
    samples = scrape(recorder, {"sweep": Restarts(3, "KeyError: 'x'", 1700000000.0, waiting=True)})

    assert value(samples, "ai_proxy_task_restarts_total", task="sweep") == 3


def test_what_has_ended_is_counted_by_itself_before_it_piles_up(recorder: Metrics) -> None:
    told: list[object] = []
    recorder.listen(told.extend)

    for _ in range(2 * BATCH - 1):
        recorder.finished(finished())

    assert len(told) == BATCH


@pytest.mark.parametrize("recorder", [NullRecorder(), Metrics()])
def test_recorders_take_whatever_the_port_tells_them(recorder: Recorder) -> None:
    recorder.state("a", "ready")
    recorder.started("a", 1.0)
    recorder.exchange("a", 200, 1.0, -1.0, 0, 0)
    recorder.finished(finished(service_id="a"))
    recorder.settle()
    recorder.forget("a")
    recorder.forget("never heard of")
    recorder.forget("")
    recorder.exchange("", 404, 1.0, -1.0, 0, 0)
