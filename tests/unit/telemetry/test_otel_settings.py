import pytest

from ai_proxy.core.settings import TelemetrySettings
from ai_proxy.telemetry.otel.settings import Plan, Protocol, Signal, Target
from ai_proxy.telemetry.otel.traceparent import Sampling

SECTION = TelemetrySettings(
    "http://file:4317", "grpc", {"key": "secret"}, sample_ratio=0.1, service_name="from-file"
)
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def test_nothing_is_sent_unless_something_says_so() -> None:
    assert Plan.of(TelemetrySettings(), {}).targets == {}


def test_section_alone_sends_everything_there() -> None:
    plan = Plan.of(SECTION, {})

    target = Target(Protocol.GRPC, "http://file:4317", {"key": "secret"})
    assert plan.targets == dict.fromkeys(Signal, target)
    assert plan.sampling == Sampling(0.1)
    assert plan.service_name == "from-file"


def test_over_http_each_signal_has_a_path_of_its_own() -> None:
    plan = Plan.of(TelemetrySettings("http://file:4318/otel/", "http/protobuf"), {})

    assert {signal: target.endpoint for signal, target in plan.targets.items()} == {
        "traces": "http://file:4318/otel/v1/traces",
        "metrics": "http://file:4318/otel/v1/metrics",
        "logs": "http://file:4318/otel/v1/logs",
    }


def test_variables_come_first() -> None:
    environ = {
        ENDPOINT: "http://variable:4318",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc",
        "OTEL_SERVICE_NAME": "from-variable",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.5",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }

    plan = Plan.of(SECTION, environ)

    assert plan.targets[Signal.TRACES] == Target(Protocol.HTTP)
    assert plan.targets[Signal.LOGS] == Target(Protocol.GRPC)
    assert plan.service_name is None
    assert plan.sampling == Sampling(0.5, follows_parent=False)
    assert plan.interval == 5.0
    assert plan.complaints == ()


def test_key_of_the_file_is_not_sent_to_the_collector_of_a_variable() -> None:
    assert Plan.of(SECTION, {ENDPOINT: "http://variable:4317"}).targets[Signal.TRACES].headers is None


def test_one_signal_may_go_elsewhere_or_nowhere() -> None:
    environ = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4317", "OTEL_LOGS_EXPORTER": "none"}

    plan = Plan.of(SECTION, environ)

    assert plan.targets[Signal.TRACES].endpoint is None
    assert plan.targets[Signal.METRICS].endpoint == "http://file:4317"
    assert Signal.LOGS not in plan.targets


def test_exporter_that_is_asked_for_goes_to_the_usual_place() -> None:
    assert Plan.of(TelemetrySettings(), {"OTEL_METRICS_EXPORTER": "otlp"}).targets == {
        Signal.METRICS: Target(Protocol.GRPC)
    }


def test_everything_can_be_switched_off() -> None:
    assert Plan.of(SECTION, {ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "TRUE"}).targets == {}


@pytest.mark.parametrize(
    ("sampler", "sampling"),
    [
        ("always_on", Sampling(1.0, follows_parent=False)),
        ("always_off", Sampling(0.0, follows_parent=False)),
        ("parentbased_always_on", Sampling(1.0)),
        ("parentbased_always_off", Sampling(0.0)),
        ("parentbased_traceidratio", Sampling(0.2)),
        ("", Sampling(0.1)),
    ],
)
def test_standard_samplers_are_known(sampler: str, sampling: Sampling) -> None:
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0.2"}

    assert Plan.of(SECTION, environ).sampling == sampling


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "supported are always_on"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "supported are grpc and http/protobuf"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "only otlp and none"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1m", "60000 is used"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1", "60000 is used"),
    ],
)
def test_variable_that_makes_no_sense_is_told_and_ignored(name: str, value: str, hint: str) -> None:
    plan = Plan.of(SECTION, {name: value})

    assert plan.targets[Signal.TRACES].protocol is Protocol.GRPC
    assert f"{name}={value!r} is ignored" in plan.complaints[0]
    assert hint in plan.complaints[0]


def test_sampling_ratio_beyond_one_is_told() -> None:
    plan = Plan.of(SECTION, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"})

    assert plan.sampling == Sampling(1.0, follows_parent=False)
    assert "OTEL_TRACES_SAMPLER_ARG='7' is ignored" in plan.complaints[0]


def test_plan_shows_no_secrets() -> None:
    assert "secret" not in repr(Plan.of(SECTION, {}))
