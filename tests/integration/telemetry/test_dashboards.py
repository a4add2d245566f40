"""Dashboards and documents speak of metrics that there are."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.telemetry.conftest import promtool
from tests.rigs.plane import view
from tests.rigs.usage import finished

from ai_proxy.core.lifecycle import State
from ai_proxy.platform.tasks import Restarts
from ai_proxy.telemetry.metrics import Metrics
from ai_proxy.telemetry.otel.metrics import Snapshot, collect
from ai_proxy.telemetry.prometheus import render

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "deploy" / "grafana" / "dashboard.json"
SIGNOZ = ROOT / "deploy" / "signoz" / "dashboard.json"
DOCUMENT = (ROOT / "docs" / "observability.md").read_text()
SERVICES = (view("llama", State.READY),)
RESTARTS = {"sweep": Restarts(1, "KeyError: 'x'", 1700000000.0, waiting=False)}


@pytest.fixture
def metrics() -> Metrics:
    """Return metrics in which everything has been counted once."""
    metrics = Metrics()
    metrics.state("llama", "ready")
    metrics.started("llama", 2.0)
    metrics.exchange("llama", 200, 3.0, 1.0, 10, 100)
    metrics.finished(finished())
    return metrics


@pytest.fixture
def exposition(metrics: Metrics) -> bytes:
    return render(metrics.services, SERVICES, RESTARTS, 7, "1.2.3")[0]


@pytest.fixture
def samples(exposition: bytes) -> dict[str, set[str]]:
    """Return the labels of every sample in `/metrics`, by its name."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture
def sent(metrics: Metrics) -> dict[str, Metric]:
    """Return every metric that OpenTelemetry sends, by its name."""
    return {metric.name: metric for metric in collect(Snapshot(metrics.services, SERVICES, RESTARTS, 0, 1))}


def expressions() -> list[str]:
    dashboard = json.loads(GRAFANA.read_text())
    variables = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]] + variables


def test_grafana_asks_only_for_metrics_and_labels_that_there_are(samples: dict[str, set[str]]) -> None:
    for expression in expressions():
        asked = re.findall(r"\b((?:ai_proxy|process)_\w+)", expression)
        assert asked, expression
        assert set(asked) <= set(samples), expression
        labels = {label for name in asked for label in samples[name]} | {"job"}
        assert set(re.findall(r"(\w+)=~?\"", expression)) <= labels, expression


def test_grafana_shows_every_metric_of_ours(samples: dict[str, set[str]]) -> None:
    shown = " ".join(expressions())
    ours = {
        re.sub(r"_(bucket|sum|count|created)$", "", name) for name in samples if name.startswith("ai_proxy")
    }

    assert {name for name in ours if name not in shown} == set()


def queries() -> list[dict[str, Any]]:
    dashboard = json.loads(SIGNOZ.read_text())
    return [query for w in dashboard["widgets"] for query in w["query"]["builder"]["queryData"]]


def test_signoz_asks_only_for_metrics_of_the_right_kind_and_attributes_that_are_sent(
    sent: dict[str, Metric],
) -> None:
    for query in queries():
        metric = sent[query["aggregateAttribute"]["key"]]
        assert type(metric.data).__name__ == query["aggregateAttribute"]["type"]
        known = {name for point in metric.data.data_points for name in point.attributes or {}}
        asked = {part["key"] for part in query["groupBy"]} | {
            f["key"]["key"] for f in query["filters"]["items"]
        }
        assert asked <= known, metric.name


def test_signoz_shows_every_metric_but_the_duration_of_all_exchanges(sent: dict[str, Metric]) -> None:
    shown = {query["aggregateAttribute"]["key"] for query in queries()}

    assert set(sent) - shown == {"ai_proxy.request.duration"}


def test_every_panel_has_its_place() -> None:
    dashboard = json.loads(SIGNOZ.read_text())

    assert [place["i"] for place in dashboard["layout"]] == [widget["id"] for widget in dashboard["widgets"]]


def test_every_metric_is_documented(samples: dict[str, set[str]], sent: dict[str, Metric]) -> None:
    families = {
        re.sub(r"_(bucket|sum|count|created)$", "", name) for name in samples if name.startswith("ai_proxy")
    }

    assert {name for name in (*families, *sent) if f"`{name}`" not in DOCUMENT} == set()


def test_every_documented_metric_exists(samples: dict[str, set[str]], sent: dict[str, Metric]) -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples}
    named = set(re.findall(r"^\| `(ai_proxy_\w+)`", DOCUMENT, re.MULTILINE))

    assert named <= families
    assert set(re.findall(r"^\| `((?:gen_ai|ai_proxy)\.[\w.]+)`", DOCUMENT, re.MULTILINE)) <= set(sent)


def test_promtool_finds_no_fault(exposition: bytes) -> None:
    judged = subprocess.run(
        [promtool(), "check", "metrics"], input=exposition, capture_output=True, check=False
    )

    assert (judged.returncode, judged.stderr) == (0, b"")


@pytest.mark.parametrize("expression", [e for e in expressions() if not e.startswith("label_values")])
def test_prometheus_understands_every_expression(expression: str, tmp_path: Path) -> None:
    plain = re.sub(r"\$__rate_interval", "5m", expression)
    rules = {"groups": [{"name": "dashboard", "rules": [{"record": "r", "expr": plain}]}]}
    (tmp_path / "rules.yml").write_text(json.dumps(rules))

    judged = subprocess.run(
        [promtool(), "check", "rules", str(tmp_path / "rules.yml")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert judged.returncode == 0, judged.stderr
