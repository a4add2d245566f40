"""What the running program tells a collector, and a real Prometheus."""

import http.client
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.e2e.conftest import Proxy, eventually, fake, free_port
from tests.rigs.otlp_sink import attributes, otlp_sink

from ai_proxy.platform.extras import how_to_install
from ai_proxy.testing.fake_engine import Behaviour


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_start_and_stop_metrics_and_logs_reach_the_collector(proxy: Proxy, protocol: str) -> None:
    with otlp_sink() as sink:
        proxy.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_url if protocol == "grpc" else sink.http_url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_HEADERS": "ingestion-key=k1",
            "OTEL_SERVICE_NAME": "the-box",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }
        proxy.configure(slow=fake(Behaviour.OK))
        proxy.serve()

        assert proxy.ask("/service/slow/v1/models").status == 200
        in_flight = sink.metric("ai_proxy.requests.in_flight")
        assert proxy.end() == 0

        start, stop = sink.span("start slow"), sink.span("stop slow")
        parts = [span.name for span in sink.spans if span.parent_span_id == start.span_id]
        assert sorted(parts) == ["loading", "starting"]
        assert stop.start_time_unix_nano > start.end_time_unix_nano
        assert attributes(in_flight.gauge.data_points[0].attributes) == {"ai_proxy.service": "slow"}
        assert sink.log("slow is ready").severity_text == "INFO"
        assert {resource["service.name"] for resource in sink.resources} == {"the-box"}
        assert {headers["ingestion-key"] for headers in sink.headers} == {"k1"}
    log = proxy.log.read_text()
    assert "WARNING" not in log.partition("stopping:")[0]
    assert "fork" not in log  # gRPC complains of it, where it may


def test_a_chat_is_a_trace_that_hangs_on_the_clients(proxy: Proxy) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with otlp_sink() as sink:
        proxy.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink.grpc_url
        proxy.configure(slow=fake(Behaviour.OK))
        proxy.serve()

        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
        headers = {"traceparent": f"00-{trace}-{parent}-01"}
        connection.request("POST", "/v1/chat/completions", '{"model": "slow", "messages": []}', headers)
        assert connection.getresponse().status == 200
        connection.close()
        assert proxy.end() == 0

        span = sink.span("chat slow")
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent)
        shown = attributes(span.attributes)
        assert (shown["ai_proxy.service"], shown["http.response.status_code"]) == ("slow", 200)


def test_section_of_the_configuration_is_enough(proxy: Proxy) -> None:
    with otlp_sink() as sink:
        config = {"server": {"port": proxy.port}, "telemetry": {"otlp_endpoint": sink.grpc_url}}
        proxy.config.write_text(json.dumps(config))
        proxy.serve()
        assert proxy.end() == 0

        assert sink.log("serving 0 services")
        assert {resource["service.name"] for resource in sink.resources} == {"ai-proxy"}


def test_a_collector_that_is_away_is_told_once_and_does_not_hold_up_the_end(proxy: Proxy) -> None:
    proxy.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    proxy.environment["OTEL_METRIC_EXPORT_INTERVAL"] = "50"
    proxy.configure()
    proxy.serve()
    eventually(lambda: "exporting metrics" in proxy.log.read_text())

    assert proxy.end() == 0

    assert proxy.log.read_text().count("exporting metrics") == 1


def test_nothing_that_sends_is_loaded_unless_it_is_configured() -> None:
    program = "import sys, ai_proxy.app; print(*sorted(sys.modules))"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    senders = ("opentelemetry.sdk", "opentelemetry.exporter", "grpc")
    assert [name for name in ended.stdout.split() if name.startswith(senders)] == []


def test_missing_packages_are_told_and_the_proxy_serves(proxy: Proxy, tmp_path: Path) -> None:
    without = tmp_path / "without"
    without.mkdir()
    (without / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry.sdk'] = None\n")
    proxy.environment |= {
        "PYTHONPATH": str(without),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
    }
    proxy.configure()

    proxy.serve()

    assert proxy.ask("/health").status == 200
    log = proxy.log.read_text()
    assert "is not installed, so nothing is exported" in log
    assert how_to_install("otel") in log


def program(name: str) -> str:
    """Return the path of a program of Prometheus; without it tests skip."""
    if (found := shutil.which(name)) is None:
        reason = f"{name} is not installed; on Debian: apt-get install prometheus"
        pytest.skip(reason)
    return found


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[int]:
    """Run a Prometheus that scrapes a port of this machine every second; yield its own port."""
    port = free_port()
    job = {"job_name": "ai-proxy", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config))
    command = [program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def query(port: int, expression: str) -> list[Any]:
    """Return what Prometheus answers, nothing while it does not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", f"/api/v1/query?query={quote(expression)}")
        answer = connection.getresponse()
        return list(json.loads(answer.read())["data"]["result"]) if answer.status == 200 else []
    except OSError:
        return []
    finally:
        connection.close()


def test_a_real_prometheus_scrapes_the_proxy(proxy: Proxy, tmp_path: Path) -> None:
    proxy.configure(slow=fake(Behaviour.OK))
    proxy.serve()
    assert proxy.ask("/service/slow/v1/models").status == 200

    with prometheus(tmp_path, proxy.port) as port:
        (requests,) = eventually(lambda: query(port, 'ai_proxy_requests_total{service="slow",status="200"}'))
        (states,) = query(port, 'ai_proxy_service_state{service="slow"} == 1')
        (up,) = query(port, 'up{job="ai-proxy"}')

    assert requests["value"][1] == "1"
    assert states["metric"]["state"] == "ready"
    assert up["value"][1] == "1"


def test_promtool_finds_no_fault_with_the_metrics_of_a_running_proxy(proxy: Proxy) -> None:
    proxy.configure(slow=fake(Behaviour.OK))
    proxy.serve()
    assert proxy.ask("/service/slow/v1/models").status == 200

    judged = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=proxy.ask("/metrics").body,
        capture_output=True,
        check=False,
    )

    assert (judged.returncode, judged.stderr) == (0, b"")
