"""What arrives at a real collector, over gRPC and over HTTP."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from loguru import logger
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.integration.telemetry.conftest import CLIENT, Open
from tests.rigs.otlp_sink import OtlpSink, attributes
from tests.rigs.plane import view
from tests.rigs.usage import finished

from ai_proxy.control.events import EventBus
from ai_proxy.control.views import ServiceView
from ai_proxy.core.lifecycle import Event, State
from ai_proxy.core.settings import TelemetrySettings
from ai_proxy.telemetry.otel.export import CLOSE_TIMEOUT
from ai_proxy.telemetry.telemetry import Telemetry


@pytest.fixture(params=["grpc", "http/protobuf"])
def settings(request: pytest.FixtureRequest, sink: OtlpSink) -> TelemetrySettings:
    """Return settings that send to the sink, by either protocol."""
    protocol = str(request.param)
    return TelemetrySettings(sink.grpc_url if protocol == "grpc" else sink.http_url, protocol)


def pass_on(telemetry: Telemetry, client: str = "") -> str:
    """Return what the data plane passes on for a client's traceparent."""
    assert telemetry.tracing is not None
    return telemetry.tracing.begin(client.encode()).decode() or client


async def test_request_arrives_as_a_child_of_the_client_with_the_id_that_the_backend_got(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    async with opened(settings) as telemetry:
        passed = pass_on(telemetry, CLIENT)
        telemetry.recorder.finished(finished(traceparent=passed, parent=CLIENT))

    span = sink.span("chat llama3")
    _, trace_id, span_id, flags = passed.split("-")
    assert (span.trace_id.hex(), span.span_id.hex(), flags) == (trace_id, span_id, "01")
    assert span.parent_span_id.hex() == CLIENT.split("-")[2]
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.start_time_unix_nano == 1_700_000_000 * 10**9
    assert span.end_time_unix_nano - span.start_time_unix_nano == 3 * 10**9
    assert attributes(span.attributes) == {
        "server.address": "127.0.0.1",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "llama3",
        "gen_ai.provider.name": "llamacpp",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 21,
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "ai_proxy.request_id": "req-1",
        "ai_proxy.service": "llama",
        "ai_proxy.streamed": True,
        "ai_proxy.wait_seconds": 0.5,
        "ai_proxy.time_to_first_token_seconds": 1.0,
        "ai_proxy.output_tokens_per_second": 10.0,
    }
    assert [(event.name, event.time_unix_nano - span.start_time_unix_nano) for event in span.events] == [
        ("first token", 10**9)
    ]


async def test_load_and_forwarding_are_parts_of_the_request(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    async with opened(settings) as telemetry:
        telemetry.recorder.finished(finished(traceparent=pass_on(telemetry)))

    whole, load, forward = sink.span("chat llama3"), sink.span("load"), sink.span("forward")
    assert load.parent_span_id == forward.parent_span_id == whole.span_id
    assert load.trace_id == forward.trace_id == whole.trace_id
    assert whole.parent_span_id == b""
    assert load.end_time_unix_nano == forward.start_time_unix_nano == whole.start_time_unix_nano + 5 * 10**8


async def test_failed_request_tells_its_error(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    async with opened(settings) as telemetry:
        failed = finished(
            traceparent=pass_on(telemetry),
            status=503,
            error="queue_full",
            seconds=0.5,
            tokens_in=-1,
            tokens_out=-1,
        )
        telemetry.recorder.finished(failed)

    span = sink.span("chat llama3")
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span.attributes)["error.type"] == "queue_full"
    assert "gen_ai.usage.input_tokens" not in attributes(span.attributes)
    assert "forward" not in {span.name for span in sink.spans}


async def test_start_and_stop_of_a_service_are_traces_of_their_own(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    bus = EventBus(time.time)
    async with opened(settings) as telemetry:
        telemetry.watch(list, bus.listen)
        bus.publish("llama", Event.START, State.STARTING, "a request came")
        await asyncio.sleep(0.001)
        bus.publish("llama", Event.LAUNCHED, State.LOADING, "pid 4711")
        await asyncio.sleep(0.001)
        bus.publish("llama", Event.PROBE_OK, State.READY, "answers")
        bus.publish("llama", Event.STOP, State.STOPPING, "asked for")
        bus.publish("llama", Event.EXITED, State.STOPPED, "exit code 0")

    start, stop = sink.span("start llama"), sink.span("stop llama")
    assert start.trace_id != stop.trace_id
    assert attributes(start.attributes)["ai_proxy.outcome"] == "ready"
    parts = {span.name: span for span in sink.spans if span.parent_span_id == start.span_id}
    assert set(parts) == {"starting", "loading"}
    assert parts["starting"].end_time_unix_nano == parts["loading"].start_time_unix_nano


async def test_metrics_arrive_with_the_numbers_that_were_counted(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    async with opened(settings) as telemetry:
        telemetry.watch(lambda: [view("llama", State.READY, in_flight=2)], lambda _: None)
        telemetry.recorder.state("llama", "ready")
        telemetry.recorder.finished(finished())

    usage = sink.metric("gen_ai.client.token.usage").histogram.data_points
    assert {(attributes(p.attributes)["gen_ai.token.type"], p.sum, p.count) for p in usage} == {
        ("input", 9, 1),
        ("output", 21, 1),
    }
    (first_token,) = sink.metric("gen_ai.server.time_to_first_token").histogram.data_points
    assert first_token.sum == 1.0
    assert attributes(first_token.attributes) == {
        "ai_proxy.service": "llama",
        "gen_ai.request.model": "llama3",
    }
    (in_flight,) = sink.metric("ai_proxy.requests.in_flight").gauge.data_points
    assert in_flight.as_int == 2
    (requests,) = sink.metric("ai_proxy.requests").sum.data_points
    assert requests.as_int == 1


async def test_metrics_are_sent_at_the_interval_of_the_variable(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    async with opened(settings, {"OTEL_METRIC_EXPORT_INTERVAL": "20"}) as telemetry:
        telemetry.recorder.finished(finished())
        metric = await asyncio.to_thread(sink.metric, "gen_ai.server.request.duration")

    assert metric.unit == "s"


async def test_sending_metrics_is_restarted_when_it_fails(opened: Open, sink: OtlpSink) -> None:
    failures = [RuntimeError("a service without a name")]

    def services() -> list[ServiceView]:
        if failures:
            raise failures.pop()
        return []

    environ = {"OTEL_METRIC_EXPORT_INTERVAL": "20"}
    async with opened(TelemetrySettings(sink.grpc_url), environ) as telemetry:
        telemetry.watch(services, lambda _: None)
        metric = await asyncio.to_thread(sink.metric, "ai_proxy.task.restarts")

    (point,) = metric.sum.data_points
    assert (attributes(point.attributes), point.as_int) == ({"ai_proxy.task": "metrics export"}, 1)


async def test_logs_arrive_with_their_trace_and_what_was_bound(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    async with opened(settings):
        bound = logger.bind(traceparent=CLIENT, request_id="req-1")
        bound.debug("too small to be sent")
        bound.warning("{} broke off", "llama")

    log = sink.log("llama broke off")
    assert log.severity_text == "WARNING"
    assert (log.trace_id.hex(), log.span_id.hex()) == tuple(CLIENT.split("-")[1:3])
    assert attributes(log.attributes)["ai_proxy.request_id"] == "req-1"
    assert not [log for log in sink.logs if "too small" in log.body.string_value]


async def test_logged_exceptions_arrive_without_the_values_of_variables(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    async with opened(settings):
        key = "-".join(["s3cret"] * 2)
        try:
            [][len(key)]
        except IndexError:
            logger.exception("it failed")

    told = attributes(sink.log("it failed").attributes)
    assert told["exception.type"] == "IndexError"
    assert "list index out of range" in str(told["exception.stacktrace"])
    assert "s3cret" not in str(told)


async def test_nothing_is_logged_to_the_collector_after_the_end(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    async with opened(settings):
        logger.info("before")
    logger.info("after")

    sink.log("before")
    assert not [log for log in sink.logs if "after" in log.body.string_value]


async def test_everything_carries_the_name_of_the_service_and_the_headers(
    opened: Open, settings: TelemetrySettings, sink: OtlpSink
) -> None:
    named = TelemetrySettings(
        settings.otlp_endpoint, settings.otlp_protocol, {"Ingestion-Key": "k1"}, service_name="gpu-box"
    )
    async with opened(named) as telemetry:
        telemetry.recorder.finished(finished(traceparent=pass_on(telemetry)))
        logger.info("a line")

    assert len(sink.headers) == 3  # traces, metrics and logs
    assert {headers.get("ingestion-key") for headers in sink.headers} == {"k1"}
    assert {(r["service.name"], r["service.version"]) for r in sink.resources} == {("gpu-box", "1.2.3")}


async def test_request_that_is_not_sampled_makes_no_spans(opened: Open, sink: OtlpSink) -> None:
    unsampled = CLIENT[:-1] + "0"
    async with opened(TelemetrySettings(sink.grpc_url)) as telemetry:
        telemetry.recorder.finished(finished(traceparent=pass_on(telemetry, unsampled), parent=unsampled))
        telemetry.recorder.finished(finished(traceparent=pass_on(telemetry, CLIENT), parent=CLIENT))

    assert [span.name for span in sink.spans if span.name.startswith("chat")] == ["chat llama3"]


@contextmanager
def silent_collector() -> Iterator[str]:
    """Take connections and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def absent_collector() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("collector", [silent_collector, absent_collector])
async def test_a_dead_collector_holds_up_nothing(
    opened: Open, protocol: str, collector: object, caplog: pytest.LogCaptureFixture
) -> None:
    with collector() as url:  # type: ignore[operator]
        async with opened(TelemetrySettings(url, protocol)) as telemetry:
            began = time.monotonic()
            for _ in range(500):
                telemetry.recorder.finished(finished(traceparent=pass_on(telemetry)))
            recorded = time.monotonic() - began
            logger.info("a line")
            began = time.monotonic()
        closed = time.monotonic() - began

    assert recorded < 2.0  # some 0.2 ms each where it was written, with all their spans
    assert closed < 2 * CLOSE_TIMEOUT + 1
    assert len(telemetry.recent()) == 500
