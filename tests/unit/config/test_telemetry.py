"""The `telemetry:` section."""

from pathlib import Path

import pytest

from ai_proxy.config.build import telemetry_settings
from ai_proxy.config.load import Loaded, load
from ai_proxy.config.schema import Config
from ai_proxy.config.show import show, to_yaml
from ai_proxy.core.settings import TelemetrySettings

TEXT = """
telemetry:
  otlp_endpoint: https://otel.example.com:4318
  otlp_protocol: http/protobuf
  headers: {ingestion-key: "${env:KEY}"}
  sample_ratio: 0.25
  service_name: gpu-box
"""


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    return load(path, {"KEY": "verysecret"})


def test_section_becomes_settings(loaded: Loaded) -> None:
    assert telemetry_settings(loaded.config) == TelemetrySettings(
        "https://otel.example.com:4318", "http/protobuf", {"ingestion-key": "verysecret"}, 0.25, "gpu-box"
    )


def test_without_a_section_nothing_is_sent() -> None:
    assert telemetry_settings(Config()) == TelemetrySettings()


def test_headers_are_not_shown(loaded: Loaded) -> None:
    shown = to_yaml(show(loaded))

    assert "${env:KEY}" in shown
    assert "verysecret" not in shown + repr(loaded.config) + repr(telemetry_settings(loaded.config))
