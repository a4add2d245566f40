import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ai_proxy.core.lifecycle import State
from ai_proxy.core.ports import Recorder
from ai_proxy.telemetry.prometheus import REQUEST_BUCKETS, Histogram, PrometheusRecorder
from ai_proxy.telemetry.recorder import NullRecorder
from ai_proxy.testing.plane import view

type Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(recorder: PrometheusRecorder) -> Samples:
    body, content_type = recorder.render([view("llama3", State.READY, in_flight=2, waiting=1)])
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.fixture
def recorder() -> PrometheusRecorder:
    recorder = PrometheusRecorder("1.2.3")
    recorder.state("llama3", "stopped")
    return recorder


def test_exchange_is_counted_in_every_metric(recorder: PrometheusRecorder) -> None:
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


def test_labels_stay_bounded_whatever_services_are_named(recorder: PrometheusRecorder) -> None:
    for number in range(100):
        recorder.exchange(f"made up {number}", 404, 0.1, 0.1, 0, 0)

    samples = scrape(recorder)

    assert value(samples, "ai_proxy_requests_total", service="", status="404") == 100
    assert {dict(labels)["service"] for name, labels in samples if name.startswith("ai_proxy_requests")} == {
        "",
        "llama3",
    }


def test_starts_and_states_are_counted(recorder: PrometheusRecorder) -> None:
    for state in ("starting", "loading", "ready", "failed", "starting"):
        recorder.state("llama3", state)
    recorder.started("llama3", 4.0)

    samples = scrape(recorder)

    assert value(samples, "ai_proxy_service_starts_total", service="llama3") == 1
    assert value(samples, "ai_proxy_service_load_seconds_sum", service="llama3") == 4.0
    assert value(samples, "ai_proxy_service_transitions_total", service="llama3", state="starting") == 2


def test_standing_of_services_is_read_at_scrape(recorder: PrometheusRecorder) -> None:
    samples = scrape(recorder)

    assert value(samples, "ai_proxy_requests_in_flight", service="llama3") == 2
    assert value(samples, "ai_proxy_requests_waiting", service="llama3") == 1
    states = {
        state: value(samples, "ai_proxy_service_state", service="llama3", state=state) for state in State
    }
    assert [state for state, is_in in states.items() if is_in] == [State.READY]


def test_forgotten_service_is_gone_and_counts_as_other(recorder: PrometheusRecorder) -> None:
    recorder.exchange("llama3", 200, 0.1, 0.1, 0, 0)
    recorder.forget("llama3")
    recorder.exchange("llama3", 200, 0.1, 0.1, 0, 0)

    samples = scrape(recorder)

    assert value(samples, "ai_proxy_requests_total", service="", status="200") == 1
    assert ("ai_proxy_requests_total", frozenset({("service", "llama3"), ("status", "200")})) not in samples


def test_build_and_process_are_told(recorder: PrometheusRecorder) -> None:
    samples = scrape(recorder)

    assert {dict(labels)["version"] for name, labels in samples if name == "ai_proxy_build_info"} == {"1.2.3"}
    assert value(samples, "process_resident_memory_bytes") > 0


@given(st.lists(st.floats(min_value=0, max_value=1e6)))
def test_histogram_puts_each_observation_in_every_bucket_that_holds_it(observations: list[float]) -> None:
    histogram = Histogram(REQUEST_BUCKETS)
    for seconds in observations:
        histogram.observe(seconds)

    *bounded, (_, everything) = histogram.cumulative()
    assert everything == len(observations)
    assert [count for _, count in bounded] == [
        sum(seconds <= float(bound) for seconds in observations) for bound, _ in bounded
    ]


def test_recording_costs_next_to_nothing(recorder: PrometheusRecorder) -> None:
    def record() -> None:
        recorder.exchange("llama3", 200, 0.7, 0.02, 10, 100)

    fastest = min(timeit.repeat(record, number=2000, repeat=20)) / 2000

    assert fastest < 5e-6  # under 1 us where it was written; the rest is for slow and busy machines


@pytest.mark.parametrize("recorder", [NullRecorder(), PrometheusRecorder("1")])
def test_recorders_take_whatever_the_port_tells_them(recorder: Recorder) -> None:
    recorder.state("a", "ready")
    recorder.started("a", 1.0)
    recorder.exchange("a", 200, 1.0, -1.0, 0, 0)
    recorder.forget("a")
    recorder.forget("never heard of")
    recorder.forget("")
    recorder.exchange("", 404, 1.0, -1.0, 0, 0)
