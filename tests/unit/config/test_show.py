from pathlib import Path

import pytest

from ai_proxy.config.build import build_services
from ai_proxy.config.load import load
from ai_proxy.config.show import MASK, show, to_yaml

EXAMPLE = Path(__file__).parents[3] / "config.example.yaml"
ENVIRON = {"CLOUD_KEY": "verysecret", "HOME": "/home/verysecret", "HF_TOKEN": "verysecret"}


def test_values_from_elsewhere_are_shown_as_their_references() -> None:
    text = to_yaml(show(load(EXAMPLE, ENVIRON)))

    assert "verysecret" not in text
    assert "${env:CLOUD_KEY}" in text
    assert "${env:HOME}/models/coder.gguf" in text


def test_what_is_shown_can_be_loaded_and_means_the_same(tmp_path: Path) -> None:
    loaded = load(EXAMPLE, ENVIRON)
    path = tmp_path / "shown.yaml"
    path.write_text(to_yaml(show(loaded)), encoding="utf-8")

    again = load(path, ENVIRON)

    assert build_services(again.config) == build_services(loaded.config)
    assert again.config.server == loaded.config.server


def test_defaults_and_the_runtime_are_filled_in() -> None:
    coder = show(load(EXAMPLE, ENVIRON))["services"]["coder"]

    assert (coder["runtime"], coder["start_timeout"], coder["on_exit"]) == ("process", "5m", "stop")


@pytest.mark.threat("an operator's mistake", "a secret in a log, an error or a shown configuration")
def test_literal_variables_that_sound_secret_are_masked(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("services: {a: {type: vllm, env: {HF_TOKEN: hf_abc, MODE: fast}}}", encoding="utf-8")

    assert show(load(path, {}))["services"]["a"]["env"] == {"HF_TOKEN": MASK, "MODE": "fast"}
